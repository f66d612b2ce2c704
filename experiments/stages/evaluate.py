"""Students on suites of held-out problems: k samples each, graded, measured."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from rich import progress

from experiments import pools, settings, student
from experiments.resolve import resolve
from experiments.settings import Problems, Run, Stage
from research.evaluation import measure
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.training.metrics import replace_file
from research.types import Problem


@dataclasses.dataclass(frozen=True)
class Suite:
  """Problems under a prefix, "" or "name/", and the budget of an answer."""

  prefix: str
  problems: Problems
  count: int
  new_tokens: int

  def __post_init__(self):
    """Raises ValueError on counts of none and a prefix that names no file."""
    if min(self.count, self.new_tokens) < 1:
      raise ValueError(f"{self}: count and new_tokens must be at least 1")
    if not re.fullmatch(r"([\w.-]+/)?", self.prefix) or self.prefix == "home/":
      raise ValueError(
        f'the prefix {self.prefix!r} of a suite is neither "" (home) nor a '
        'name and a slash, such as "hard/"'
      )


@dataclasses.dataclass(frozen=True)
class Config:
  """`students` are stages' names; `pairs` are (left, right) to subtract."""

  run: Run
  students: tuple[Stage, ...]
  suites: tuple[Suite, ...]
  samples: int
  ks: tuple[int, ...]
  pairs: tuple[tuple[Stage, ...], ...]
  rows: int
  temperature: float = 1.0
  top_p: float = 1.0

  def __post_init__(self):
    """Raises ValueError on what would else fail when all is sampled."""
    if len({suite.prefix for suite in self.suites}) < len(self.suites):
      raise ValueError("two suites have the same prefix")
    if not self.ks or min(self.ks) < 1:
      raise ValueError(f"ks is {self.ks}; pass@k wants every k at least 1")
    if max(self.ks) > self.samples:
      raise ValueError(
        f"pass@{max(self.ks)} wants as many samples, not {self.samples}: raise "
        "samples or lower ks"
      )
    for pair in self.pairs:
      if len(pair) != 2 or not set(pair) <= set(self.students):
        raise ValueError(f"the pair {pair} is not two of {self.students}")


def _answer(
  config: Config, suite: Suite, params: Any, mesh: Any
) -> list[dict[str, Any]]:
  """Returns a record a sample; see research.evaluation.pass_at_k."""
  tokenizer = settings.load_tokenizer(config.run)
  task, k = resolve(suite.problems.task), config.samples
  asked = pools.pool(suite.problems, suite.count, config.run.seed)
  problems = [p for p in asked for _ in range(k)]
  completions = rollout.write(
    config.run.model,
    params,
    tokenizer,
    problems,
    # one key a suite: all students draw by the same numbers, in pairs
    settings.key(config.run, f"evaluate/{suite.prefix}"),
    rollout.Budget(
      Sampling(config.temperature, top_p=config.top_p),
      suite.new_tokens,
      config.rows,
    ),
    mesh,
  )
  graded = rollout.grade(task, tokenizer, problems, completions)
  return [
    {"sample": i % k, **_about(task, problem, record), **record}
    for i, (problem, record) in enumerate(zip(problems, graded, strict=True))
  ]


def _about(task: Any, problem: Problem, record: dict) -> dict[str, Any]:
  """Returns what evaluation asks beyond a reward."""
  written = record["completion"]
  return {
    "problem": problem.meta["key"],
    "difficulty": problem.meta["difficulty"],
    "gold": problem.answer,
    "answer": task.extracted(written),
    "lenient": task.lenient(problem, written).kind,
  }


def _table(
  config: Config,
  suite: Suite,
  name: str,
  inputs: dict[str, Any],
  workdir: pathlib.Path,
  mesh: Any,
) -> list[dict[str, Any]]:
  """Returns a student's samples, from their file where it is complete."""
  suite_name = suite.prefix.strip("/") or "home"
  path = workdir / "samples" / f"{suite_name}-{name}.jsonl"
  if path.exists():
    return [json.loads(line) for line in path.read_text().splitlines()]
  params = student.load(config, inputs, name, mesh)
  told = {"student": name, "suite": suite.prefix.strip("/")}
  records = [told | r for r in _answer(config, suite, params, mesh)]
  path.parent.mkdir(exist_ok=True)
  lines = "".join(json.dumps(record) + "\n" for record in records)
  replace_file(path, lines.encode())
  return records


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Evaluates every student on every suite; returns the lines of the summary.

  Names are prefix + student/metric, and for a pair
  prefix + left_minus_right/pass@1.
  """
  mesh = student.make_mesh(config)
  seed, found = config.run.seed, {}
  work = [(suite, s) for suite in config.suites for s in config.students]
  tables = {}
  for suite, name in progress.track(work, workdir.name.rjust(12)):
    table = _table(config, suite, name, inputs, workdir, mesh)
    tables[suite.prefix, name] = table
    lines = measure.measure(table, config.ks, seed=seed)
    for metric, value in lines.items():
      found[f"{suite.prefix}{name}/{metric}"] = value
  for suite in config.suites:
    for left, right in config.pairs:
      sides = tables[suite.prefix, left], tables[suite.prefix, right]
      name = f"{suite.prefix}{left}_minus_{right}/pass@1"
      found[name] = measure.compare(*sides, 1, seed=seed)
  return {"summary": found}
