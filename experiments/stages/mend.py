"""Wrong attempts are mended where they first go wrong, and begun anew there.

SCoRe (2509.14257): a student reads its own attempts with the first wrong step
mended, and then reinforces itself from its own right beginnings.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

from experiments import files, pools, samples
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run
from research import first_error
from research.first_error import Slip
from research.teachers import answers
from research.types import Problem

ASK = (
  "Problem:\n{prompt}\n\nThe beginning of a solution, which is right so far:\n"
  "{begun}\n\nGo on from there to the end. Write only what follows."
)


@dataclasses.dataclass(frozen=True)
class Config:
  """`attempts` are JSONL files at the first `count` of `problems`, by key.

  They hold a `key` and a `completion` a line, such as dropped.jsonl of
  experiments.stages.annotate; a folder stands for all of its files, such as a
  stage's rollouts. `{stage}` at a path's head stands for that stage's folder.

  An answer is begun behind the "prefix" that is right, or behind the mended
  "step" too. `teacher`, which has a `reply`, goes on from the prefix; None is
  the task's own `trace`. The task has a `first_error`.
  """

  run: Run
  problems: Problems
  count: int
  attempts: tuple[str, ...]
  begin: Literal["prefix", "step"] = "prefix"
  teacher: Plugin | None = None

  def __post_init__(self):
    """Raises ValueError where nothing could be mended."""
    if self.count < 1 or not self.attempts:
      raise ValueError(
        f"mend: count is {self.count} and attempts {self.attempts}; at least 1 "
        "of each is wanted"
      )
    task = resolve(self.problems.task)
    if not hasattr(task, "first_error"):
      raise ValueError(f"{task.__name__} has no first_error: no line is judged")


def _paths(config: Config, inputs: dict[str, Any]) -> list[str]:
  """Returns the files of attempts, those of a folder in order."""
  found = []
  for path in config.attempts:
    folder = pathlib.Path(files.located(path, inputs))
    inside = sorted(folder.glob("*.jsonl")) if folder.is_dir() else [folder]
    found += map(str, inside)
  return found


def _solved(task: Any, problem: Problem, slip: Slip) -> str:
  """Returns the task's own solution, or "" where it begins otherwise."""
  text = task.trace(problem, 0)
  return text if text.startswith(slip.begun) else ""


def _written(
  config: Config,
  inputs: dict[str, Any],
  task: Any,
  slips: list[tuple[Problem, Slip]],
) -> tuple[list[str], dict[str, Any]]:
  """Returns each beginning with an end, and the teacher's account."""
  if config.teacher is None:
    return [_solved(task, *slip) for slip in slips], {}
  reply = functools.partial(
    resolve(config.teacher.name).reply,
    seed=config.run.seed,
    **files.located_in(config.teacher.args, inputs),
  )
  said = reply(
    answers.question(ASK.format(prompt=problem.prompt, begun=slip.begun))
    for problem, slip in slips
  )
  texts = [f"{slip.begun}{next(said).text or ''}" for _, slip in slips]
  return texts, answers.account(said)


def _slips(
  config: Config, inputs: dict[str, Any], task: Any
) -> tuple[list[tuple[Problem, Slip]], dict[str, int]]:
  """Returns where attempts go wrong, each such place once, and counts."""
  problems = pools.by_key(
    config.problems, config.count, config.run.seed, inputs
  )
  said, unread = samples.read(_paths(config, inputs), inputs, problems)
  found = [
    (key, slip)
    for key, texts in said.items()
    for text in texts
    if (slip := first_error.find(task, problems[key], text))
  ]
  places = dict.fromkeys((key, slip) for key, slip in found if slip.line)
  counts = {
    "unread": unread,
    "attempts": sum(map(len, said.values())),
    "wrong": len(found),
    "too_long": sum(not slip.line for _, slip in found),
  }
  return [(problems[key], slip) for key, slip in places], counts


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes problems.jsonl, answers begun, and traces.jsonl, attempts mended.

  Returns how many different attempts there were, and how many were `wrong`; of
  these `too_long`, wrong by lines behind the last, are left out. Then how many
  answers are `begun`, of which `bare` are by nothing, and how many attempts
  were `mended`, all of whose lines are right now.

  Raises:
    ValueError: an attempt is at another problem, or none can be mended.
  """
  task = resolve(config.problems.task)
  slips, counts = _slips(config, inputs, task)
  begun = [
    dataclasses.replace(
      problem,
      begun=slip.begun if config.begin == "prefix" else f"{slip.mended}\n",
    )
    for problem, slip in slips
  ]
  # What is whole leaves nothing to write.
  begun = [p for p in begun if task.first_error(p, p.begun) is not None]
  if not begun:
    raise ValueError(f"{workdir.name}: nothing can be mended: {counts}")
  texts, account = _written(config, inputs, task, slips)
  traces = [
    {"prompt": problem.prompt, "key": problem.meta["key"], "completion": text}
    for (problem, _), text in zip(slips, texts, strict=True)
    if task.first_error(problem, text) is None
  ]
  pools.write(workdir / "problems.jsonl", begun)
  files.write_lines(workdir / "traces.jsonl", traces)
  bare = sum(not problem.begun for problem in begun)
  made = {"begun": len(begun), "bare": bare, "mended": len(traces)}
  return {**counts, **made, "teacher": account}
