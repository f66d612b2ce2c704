"""A teacher writes traces, and gates say which of them a student may read."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from rich import progress

from experiments import files, held_out, pools, settings, sieve
from experiments.held_out import HeldOut
from experiments.resolve import resolve
from experiments.settings import Address, Plugin, Problems, Run
from research.annotation import gates
from research.training.metrics import replace_file
from research.types import Trace


@dataclasses.dataclass(frozen=True)
class Config:
  """`teacher` (a `write` function, with `args`) writes `samples` a problem.

  `gates` run in this order; `critic` is the teacher (a `reply` function) that
  some of them ask, `held_out` what `decontaminate` compares with. `{stage}` at
  the head of an argument stands for that stage's folder, this one's too.
  """

  run: Run
  problems: Problems
  count: int
  teacher: Address
  args: dict[str, Any] = dataclasses.field(default_factory=dict)
  samples: int = 1
  gates: tuple[Plugin, ...] = (Plugin(Address("research.annotation.verify")),)
  critic: Plugin | None = None
  held_out: tuple[HeldOut, ...] = ()

  def __post_init__(self):
    """Raises ValueError where nothing would be written."""
    if min(self.count, self.samples) < 1:
      raise ValueError(
        f"annotate: count is {self.count} and samples {self.samples}; at "
        "least 1 of each is wanted"
      )


def _counted[T](
  said: Iterable[T], accounts: list[dict[str, Any]]
) -> Generator[T, None, Any]:
  """Yields what a teacher says, and adds what it returns to `accounts`."""
  account = yield from said
  accounts += [account] if account else []


def _about(
  config: Config, inputs: Mapping[str, Any], critic: list[dict[str, Any]]
) -> gates.About:
  """Returns what the gates may know."""
  reply = None
  if config.critic is not None:
    ask = functools.partial(
      resolve(config.critic.name).reply,
      seed=config.run.seed,
      **files.located_in(config.critic.args, inputs),
    )
    reply = lambda conversations: _counted(ask(conversations), critic)
  return gates.About(
    resolve(config.problems.task),
    settings.load_tokenizer(config.run),
    config.run.seed,
    held_out.texts(config.held_out, inputs, config.run.seed),
    reply,
  )


def _keep(
  workdir: pathlib.Path,
  task: Any,
  kept: list[Trace],
  dropped: list[gates.Dropped],
) -> None:
  """Writes the traces, an answer for each of their problems, and the rest."""
  about = lambda trace: {
    "prompt": trace.problem.prompt,
    "key": trace.problem.meta["key"],
  }
  traces = [about(trace) | {"completion": trace.text} for trace in kept]
  answered = {id(trace.problem): trace for trace in kept}.values()
  answers = [
    about(trace) | {"completion": task.answer_text(trace.problem)}
    for trace in answered
  ]
  refused = [
    about(trace)
    | {"sample": trace.sample, "completion": trace.text, "gate": gate}
    | {"reason": why.name, "detail": why.detail}
    for trace, gate, why in dropped
  ]
  files.write_lines(workdir / "traces.jsonl", traces)
  files.write_lines(workdir / "answers.jsonl", answers)
  files.write_lines(workdir / "dropped.jsonl", refused)


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes traces.jsonl, and answers.jsonl: their problems, answers alone.

  What was dropped is in dropped.jsonl with its gate and reason, and the counts
  are in gates.json. Returns these, and what the teachers say they did.

  Raises:
    ValueError: no trace is left.
  """
  task = resolve(config.problems.task)
  problems = pools.pool(config.problems, config.count, config.run.seed, inputs)
  inputs = inputs | {workdir.name: {"folder": str(workdir)}}
  teacher: list[dict[str, Any]] = []  # their accounts, one a call
  critic: list[dict[str, Any]] = []
  about = _about(config, inputs, critic)
  chosen = sieve.named(config.gates, about, inputs)
  # Without traces first: a gate that is not told what it needs costs nothing.
  gates.run([], chosen)
  written = resolve(config.teacher).write(
    task,
    problems,
    config.samples,
    config.run.seed,
    **files.located_in(config.args, inputs),
  )
  watched = progress.track(
    _counted(written, teacher),
    workdir.name.rjust(12),
    len(problems) * config.samples,
  )
  kept, dropped, counts = gates.run(list(watched), chosen)
  told = {"gates": counts, "teacher": teacher, "critic": critic}
  _keep(workdir, task, kept, dropped)
  replace_file(workdir / "gates.json", json.dumps(told, indent=2).encode())
  if not kept:
    why = dropped[-1]
    raise ValueError(
      f"{workdir.name}: no trace is left of {counts[0]['in']}; the last was "
      f"dropped by {why.gate} as {why.reason.name}: {why.reason.detail!r}. All "
      f"counts are in {workdir / 'gates.json'}"
    )
  passed = {
    f"{workdir.name}_{n}_{count['gate'].rpartition('.')[2]}": count["out"]
    for n, count in enumerate(counts)
  }
  return {"kept": len(kept), **told, "summary": passed}
