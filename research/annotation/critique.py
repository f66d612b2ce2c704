"""Wrong traces are checked and revised until they are right.

SciGLM's reflective annotation (Zhang et al. 2024, 2401.07950): a teacher finds
the mistake, then writes the solution anew, some rounds long; at last it is told
the answer. What is right in the end was graded like any other.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.grading import extract
from research.teachers import answers
from research.teachers.answers import Messages
from research.types import Trace

REVISE = (
  "Now write the corrected solution, whole and on its own, ending with the "
  "answer in the same form. Do not speak of the mistake or of this check."
)


def sift(
  traces: Sequence[Trace], about: About, *, rounds: int = 2, reveal: bool = True
) -> Sifted:
  """Keeps what is correct, at once or revised; what stays wrong is dropped.

  Figures are how many became correct "at first", in each round, and when the
  answer was `reveal`ed, and how many requests were "unanswered". A trace whose
  grading fails is not known to be wrong: it is dropped unasked. Raises
  ValueError where `about.reply` is None.
  """
  now = list(traces)
  reasons = _grade(about, now, range(len(now)))
  figures = {"at first": len(now) - len(reasons), "unanswered": 0}

  def revise(asked: dict[int, Messages], name: str) -> None:
    told = gates.ask(about, asked)
    for i, answer in told.items():
      now[i] = answers.of_answer(now[i], answer)
      del reasons[i]
    reasons.update(_grade(about, now, told))
    figures[name] = len(told) - len(told.keys() & reasons.keys())
    figures["unanswered"] += len(asked) - len(told)

  for number in range(1, rounds + 1):
    asked = {i: _check(now[i], number) for i in _wrong(reasons)}
    told = gates.ask(about, asked)
    figures["unanswered"] += len(asked) - len(told)
    revise(
      {i: _on(asked[i], answer.text or "") for i, answer in told.items()},
      f"round {number}",
    )
  if reveal:
    revise(
      {i: _reveal(about.task, now[i]) for i in _wrong(reasons)}, "revealed"
    )
  kept = [trace for i, trace in enumerate(now) if i not in reasons]
  dropped = [(now[i], reason) for i, reason in sorted(reasons.items())]
  return Sifted(kept, dropped, {"correct": figures})


def _grade(
  about: About, now: Sequence[Trace], places: Iterable[int]
) -> dict[int, Reason]:
  """Why those at `places` that are not correct are not."""
  graded = {i: gates.wrong(about.task, now[i]) for i in places}
  return {i: reason for i, reason in graded.items() if reason is not None}


def _wrong(reasons: dict[int, Reason]) -> list[int]:
  """The places of what is known to be wrong."""
  known = ("wrong", "unparsed")
  return sorted(i for i, reason in reasons.items() if reason.name in known)


def _attempt(trace: Trace, which: str) -> str:
  return f"Problem:\n{trace.problem.prompt}\n\n{which}:\n{trace.text}\n\n"


def _check(trace: Trace, number: int) -> Messages:
  """Asks for the first mistake of an attempt, the `number`th at its problem."""
  return answers.question(
    _attempt(trace, f"Attempt {number} at a solution")
    + "Check it step by step: name the first mistake, and say how to mend it."
  )


def _on(asked: Messages, critique: str) -> Messages:
  """Asks, behind a critique, for the whole solution without the mistake."""
  said = extract.conclusion(critique) or critique
  return (
    *asked,
    {"role": "assistant", "content": said},
    *answers.question(REVISE),
  )


def _reveal(task: Any, trace: Trace) -> Messages:
  """Asks for a right solution, and tells what it ends with."""
  answer = task.answer_text(trace.problem)
  return answers.question(
    _attempt(trace, "A wrong solution")
    + "Write a correct one, whole and on its own, as if you had never seen "
    f"this one nor been told the answer. It ends with:\n{answer}"
  )


def lessons(task: Any, trace: Trace) -> list[Messages]:
  """What a critic should answer about a trace: a check mended, and a reveal.

  The task's `first_error` finds the mistake, and its `trace` the solution; a
  trace without a mistake teaches nothing.
  """
  found = task.first_error(trace.problem, trace.text or "")
  if found is None:
    return []
  place, line = found
  said = f"The first mistake is in line {place + 1}, which should be:\n{line}"
  right = task.trace(trace.problem, trace.sample)
  asked = _on(_check(trace, 1), said), _reveal(task, trace)
  return [(*a, {"role": "assistant", "content": right}) for a in asked]
