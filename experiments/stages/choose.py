"""Students that answer by choice: the likeliest of a few given texts."""

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np
from jax.sharding import Mesh
from rich import progress

from experiments import pools, reading, settings, student
from experiments.resolve import resolve
from experiments.settings import Problems, Run, Stage
from research.data import packing, text
from research.evaluation import intervals
from research.types import Problem


@dataclasses.dataclass(frozen=True)
class Config:
  """`count` problems, to each of which a student gives one of `answers`.

  It gives the one to which it gives the highest log-probability, its end
  included: of all tokens together, or, `per_token`, of a token on average, so
  that a long answer does not lose for its length. Names of the summary begin
  with `prefix`, "" or "name/". A problem whose longest answer does not fit
  `length` tokens is left out and counted. `pairs` are (left, right) students to
  subtract; "majority" is the one who always gives the answer that is right most
  often.
  """

  run: Run
  students: tuple[Stage, ...]
  problems: Problems
  count: int
  answers: tuple[str, ...]
  rows: int
  length: int
  per_token: bool = False
  prefix: str = ""
  pairs: tuple[tuple[Stage, ...], ...] = ()

  def __post_init__(self):
    """Raises ValueError on choices without a choice."""
    if len(set(self.answers)) < max(2, len(self.answers)):
      raise ValueError(f"choose: {self.answers} are not two different answers")
    if min(self.count, self.rows, self.length) < 1:
      raise ValueError(f"{self}: count, rows and length must be at least 1")
    settings.check_prefix(self.prefix)
    student.check_length(self, self.length)
    settings.check_pairs(self.pairs, self.students)


def _asked(
  config: Config, inputs: dict[str, Any]
) -> tuple[list[Problem], list[packing.Example], int]:
  """Returns the problems that fit, an example for each answer to each of them,
  and how many problems do not fit.
  """
  tokenizer = settings.load_tokenizer(config.run)
  every = pools.pool(config.problems, config.count, config.run.seed, inputs)
  problems, examples = [], []
  for problem in every:
    about = [
      text.example(tokenizer, {"prompt": problem.prompt, "completion": answer})
      for answer in config.answers
    ]
    if max(map(packing.size_of, about)) <= config.length:
      problems.append(problem)
      examples += about
  if not problems:
    raise ValueError(
      f"choose: none of {len(every)} problems fits {config.length} tokens: "
      "raise length"
    )
  return problems, examples, len(every) - len(problems)


def _chosen(
  config: Config, read: reading.Batches, params: Any, mesh: Mesh
) -> list[int]:
  """Returns the place of the answer that a student gives to each problem."""
  costs = reading.costs(config.run.model, mesh, params, read)
  nats, tokens = np.array([costs[i] for i in sorted(costs)]).T
  said = nats / tokens if config.per_token else nats
  return said.reshape(-1, len(config.answers)).argmin(1).tolist()


def _grades(config: Config, problems: list[Problem]) -> np.ndarray:
  """Returns what each problem's task gives for each answer.

  Raises:
    ValueError: no answer, or more than one, is right somewhere.
  """
  task = resolve(config.problems.task)
  grades = np.array(
    [[task.reward(p, a).value for a in config.answers] for p in problems]
  )
  for problem, right in zip(problems, (grades == 1.0).sum(1), strict=True):
    if right != 1:
      raise ValueError(
        f"choose: {right} of {config.answers} are right for the problem "
        f"{problem.meta['key']!r}, and one is wanted"
      )
  return grades


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Asks every student; returns prefix + student/accuracy.

  Beside them stands majority/accuracy, and of each student student_minus_
  majority/accuracy, paired by problem. Returns also how often each gave which
  answer.
  """
  mesh, seed = student.make_mesh(config), config.run.seed
  problems, examples, left_out = _asked(config, inputs)
  pad = settings.load_tokenizer(config.run).pad
  read = reading.batches(
    examples, rows=config.rows, length=config.length, pad=pad
  )
  grades = _grades(config, problems)
  right = {"majority": grades[:, grades.mean(0).argmax()]}
  gave = {}
  for name in progress.track(config.students, workdir.name.rjust(12)):
    params = student.load(config, inputs, name, mesh)
    places = _chosen(config, read, params, mesh)
    counts = collections.Counter(config.answers[at] for at in places)
    gave[name] = {answer: counts[answer] for answer in config.answers}
    right[name] = grades[np.arange(len(places)), places]
  keys = [problem.meta["key"] for problem in problems]
  cells = {
    n: dict(zip(keys, x.tolist(), strict=True)) for n, x in right.items()
  }
  found = {
    f"{config.prefix}{name}/accuracy": intervals.proportion(x, seed=seed)
    for name, x in cells.items()
  }
  against = [(name, "majority") for name in config.students]
  for left, other in (*config.pairs, *against):
    found[f"{config.prefix}{left}_minus_{other}/accuracy"] = intervals.paired(
      cells[left], cells[other], seed=seed
    )
  asked = {"asked": len(problems), "left_out": left_out, "gave": gave}
  return asked | {"summary": found}
