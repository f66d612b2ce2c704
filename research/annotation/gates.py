"""A gate keeps some of a teacher's traces and says why it drops the others.

A gate is a module with a pure function

    sift(traces, about, **args) -> Sifted

Every trace that goes in comes out once: kept, in order, perhaps rewritten, or
dropped for a reason. `run` counts, and holds them to it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from research.data import text
from research.teachers.answers import Answer, Messages, Replies
from research.types import Trace


class Reason(NamedTuple):
  """Why a trace is dropped: a few words that are counted, and its own case."""

  name: str
  detail: str = ""


class Dropped(NamedTuple):
  """A trace, the gate that dropped it, and why."""

  trace: Trace
  gate: str
  reason: Reason


@dataclasses.dataclass(frozen=True)
class About:
  """What gates may know beside the traces.

  `tokenizer` is the student's, `held_out` the texts of each evaluation set by
  its name, and `reply` asks a teacher (see teachers.answers), None where none
  is named.
  """

  task: Any
  tokenizer: text.Tokenizer
  seed: int
  held_out: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=dict
  )
  reply: Callable[[Iterable[Messages]], Replies] | None = None


@dataclasses.dataclass(frozen=True)
class Sifted:
  """What a gate kept, what it dropped, and figures of its own."""

  kept: list[Trace]
  dropped: list[tuple[Trace, Reason]]
  figures: dict[str, Any] = dataclasses.field(default_factory=dict)


Gate = Callable[[Sequence[Trace]], Sifted]


def split(
  traces: Iterable[Trace], judge: Callable[[Trace], Reason | None]
) -> Sifted:
  """Keeps the traces for which `judge` has no reason not to."""
  kept, dropped = [], []
  for trace in traces:
    reason = judge(trace)
    if reason is None:
      kept.append(trace)
    else:
      dropped.append((trace, reason))
  return Sifted(kept, dropped)


def written(traces: Sequence[Trace]) -> Sifted:
  """Drops what no gate can read: errors, blank text and broken Unicode."""

  def judge(trace: Trace) -> Reason | None:
    why = fault(trace.text)
    return Reason(why, trace.error or "") if why else None

  return split(traces, judge)


def fault(text: str | None) -> str | None:
  """Why a text cannot be read: an "error", "blank" or "not Unicode"."""
  if text is None:
    return "error"
  if not text.strip():
    return "blank"
  try:
    text.encode("utf-8")
  except UnicodeEncodeError:
    return "not Unicode"
  return None


def run(
  traces: Sequence[Trace], gates: Iterable[tuple[str, Gate]]
) -> tuple[list[Trace], list[Dropped], list[dict[str, Any]]]:
  """Returns what passes `written` and all gates, what does not, and counts.

  The counts are a record a gate: its name, how many went `in` and came `out`,
  how many were `dropped` by reason, and the gate's own figures.

  Raises ValueError naming a gate that loses or makes a trace.
  """
  kept, dropped, counts = list(traces), [], []
  for name, gate in (("written", written), *gates):
    sifted = gate(kept)
    _check(name, kept, sifted)
    reasons = collections.Counter(why.name for _, why in sifted.dropped)
    count = {"gate": name, "in": len(kept), "out": len(sifted.kept)}
    counts.append(count | {"dropped": dict(reasons)} | sifted.figures)
    dropped += [Dropped(trace, name, why) for trace, why in sifted.dropped]
    kept = sifted.kept
  return kept, dropped, counts


def _check(name: str, before: Sequence[Trace], sifted: Sifted) -> None:
  after = [*sifted.kept, *(trace for trace, _ in sifted.dropped)]
  identity = lambda trace: (id(trace.problem), trace.sample)
  if collections.Counter(map(identity, before)) != collections.Counter(
    map(identity, after)
  ):
    raise ValueError(
      f"the gate {name} was given {len(before)} traces and accounts for "
      f"{len(after)}, or for others: it must keep or drop each of them once"
    )


def rewritten(trace: Trace, text: str) -> Trace:
  """A trace with another text, of which the teacher counted no tokens."""
  return dataclasses.replace(trace, text=text, tokens=None)


def wrong(task: Any, trace: Trace) -> Reason | None:
  """Why the task's reward does not find a trace correct.

  A grader that fails is no wrong answer: its reason is "error" or "timeout".
  """
  text = trace.text or ""
  try:
    kind = task.reward(trace.problem, text).kind
  except Exception as error:  # whatever a task's grader may do
    return Reason("error", f"{type(error).__name__}: {error}")
  return None if kind == "correct" else Reason(kind, text[-80:])


def ask(about: About, asked: Mapping[int, Messages]) -> dict[int, Answer]:
  """What a teacher answers to each conversation that it answers readably.

  Raises ValueError where no teacher is named.
  """
  if about.reply is None:
    raise ValueError("this gate asks a teacher: name one in the stage's critic")
  if not asked:
    return {}
  told = dict(zip(asked, about.reply(asked.values()), strict=True))
  return {
    i: answer
    for i, answer in told.items()
    if answer.finish in ("stop", "length") and fault(answer.text) is None
  }
