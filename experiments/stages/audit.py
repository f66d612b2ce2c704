"""What gates let through: how much of it, and how much of that is right."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import files, pools, settings
from experiments.resolve import resolve
from experiments.settings import Problems, Run, Stage
from research.data import jsonl
from research.evaluation import intervals
from research.types import Problem


@dataclasses.dataclass(frozen=True)
class Config:
  """`kept` names annotate stages, all over the first `count` of `problems`.

  `pairs` are (left, right) of them, whose yields are subtracted.
  """

  run: Run
  problems: Problems
  count: int
  kept: tuple[Stage, ...]
  pairs: tuple[tuple[Stage, ...], ...] = ()

  def __post_init__(self):
    """Raises ValueError on pairs of others."""
    settings.check_pairs(self.pairs, self.kept)


Rates = dict[str, float]


def _rates(
  task: Any, problems: Mapping[str, Problem], path: str
) -> dict[str, Rates]:
  """Returns `yield`, `right` and `sound` of each problem that has one."""
  right, sound = collections.defaultdict(list), collections.defaultdict(list)
  for record in jsonl.read(path):
    key, text = record["key"], record["completion"]
    right[key].append(task.reward(problems[key], text).kind == "correct")
    sound[key].append(task.first_error(problems[key], text) is None)
  mean = lambda found: {key: sum(x) / len(x) for key, x in found.items()}
  got = {key: float(key in right) for key in problems}
  return {"yield": got, "right": mean(right), "sound": mean(sound)}


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns stage/yield, stage/right and stage/sound, and the yields' pairs.

  `yield` is the share of problems with a trace that is kept; of these traces,
  `right` is the share whose answer is correct and `sound` the share without a
  wrong step, by the task's `first_error`. Intervals are over problems.
  """
  del workdir
  task = resolve(config.problems.task)
  problems = pools.by_key(
    config.problems, config.count, config.run.seed, inputs
  )
  path = "{%s}/traces.jsonl"
  rates = {
    name: _rates(task, problems, files.located(path % name, inputs))
    for name in config.kept
  }
  seed = config.run.seed
  found = {
    f"{name}/{what}": intervals.proportion(values, seed=seed)
    for name, told in rates.items()
    for what, values in told.items()
  }
  for left, right in config.pairs:
    both = (rates[name]["yield"] for name in (left, right))
    difference = intervals.paired(*both, seed=seed)
    found[f"{left}_minus_{right}/yield"] = difference
  return {"asked": len(problems), "summary": found}
