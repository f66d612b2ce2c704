"""Students on suites of held-out problems: k samples each, graded, measured."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from rich import progress

from experiments import files, pools, retrieval, settings, student
from experiments.resolve import resolve
from experiments.retrieval import Asked, Retrieval
from experiments.settings import Problems, Run, Stage
from research.evaluation import intervals, measure
from research.knowledge import retrieve
from research.sampling import rollout
from research.sampling.sampler import Sampling
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
class Reader:
  """A stage's student that is given passages before each question."""

  student: Stage
  passages: Retrieval


@dataclasses.dataclass(frozen=True)
class Config:
  """`students` are stages' names; `pairs` are (left, right) to subtract.

  `readers`, by names of their own, are evaluated beside them.
  """

  run: Run
  students: tuple[Stage, ...]
  suites: tuple[Suite, ...]
  samples: int
  ks: tuple[int, ...]
  pairs: tuple[tuple[str, ...], ...]
  rows: int
  temperature: float = 1.0
  top_p: float = 1.0
  readers: dict[str, Reader] = dataclasses.field(default_factory=dict)

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
    if twice := set(self.readers) & set(self.students):
      raise ValueError(f"a reader is named as a student is: {sorted(twice)}")
    settings.check_pairs(self.pairs, self.names)

  @property
  def names(self) -> tuple[str, ...]:
    """All that are evaluated."""
    return (*self.students, *self.readers)


def _behind(
  config: Config,
  reader: Reader,
  inputs: dict[str, Any],
  task: Any,
  problems: list[Problem],
) -> tuple[list[Problem], dict[str, float]]:
  """Returns the problems behind their passages, and what recall these have."""
  asked = [
    Asked(p.meta["key"], p.prompt, task.trace(p, 0), p.answer) for p in problems
  ]
  found = retrieval.find(config, reader.passages, inputs, asked)
  told = [
    dataclasses.replace(p, prompt=retrieve.before(passages, p.prompt))
    for p, passages in zip(problems, found, strict=True)
  ]
  return told, retrieval.recalls(reader.passages, asked, found)


def _answer(
  config: Config, suite: Suite, name: str, inputs: dict[str, Any], mesh: Any
) -> list[dict[str, Any]]:
  """Returns a record a sample; see research.evaluation.pass_at_k."""
  tokenizer = settings.load_tokenizer(config.run)
  task, k = resolve(suite.problems.task), config.samples
  asked = pools.pool(suite.problems, suite.count, config.run.seed, inputs)
  recalls: dict[str, float] = {}
  if name in config.readers:
    reader = config.readers[name]
    asked, recalls = _behind(config, reader, inputs, task, asked)
    name = reader.student
  problems = [p for p in asked for _ in range(k)]
  completions = rollout.write(
    config.run.model,
    student.load(config, inputs, name, mesh),
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
    {"sample": i % k, **_about(task, problem, recalls, record), **record}
    for i, (problem, record) in enumerate(zip(problems, graded, strict=True))
  ]


def _about(
  task: Any, problem: Problem, recalls: dict[str, float], record: dict
) -> dict[str, Any]:
  """Returns what evaluation asks beyond a reward."""
  written, key = record["completion"], problem.meta["key"]
  recall = {"recall": recalls[key]} if key in recalls else {}
  return recall | {
    "problem": key,
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
  told = {"student": name, "suite": suite.prefix.strip("/")}
  records = [told | r for r in _answer(config, suite, name, inputs, mesh)]
  path.parent.mkdir(exist_ok=True)
  files.write_lines(path, records)
  return records


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Evaluates every student on every suite; returns the lines of the summary.

  Names are prefix + student/metric, and for a pair
  prefix + left_minus_right/pass@1 and wrong_tokens. A reader's recall is that
  of the passages which a solution quotes.
  """
  mesh = student.make_mesh(config)
  seed, found = config.run.seed, {}
  work = [(suite, s) for suite in config.suites for s in config.names]
  tables = {}
  for suite, name in progress.track(work, workdir.name.rjust(12)):
    table = _table(config, suite, name, inputs, workdir, mesh)
    tables[suite.prefix, name] = table
    lines = measure.measure(table, config.ks, seed=seed)
    for metric, value in lines.items():
      found[f"{suite.prefix}{name}/{metric}"] = value
    recalls = {r["problem"]: r["recall"] for r in table if "recall" in r}
    if recalls:
      metric = f"recall@{config.readers[name].passages.count}"
      found[f"{suite.prefix}{name}/{metric}"] = intervals.bootstrap(
        recalls, seed=seed
      )
  for suite in config.suites:
    for left, right in config.pairs:
      sides = tables[suite.prefix, left], tables[suite.prefix, right]
      for metric, value in measure.compare(*sides, seed=seed).items():
        found[f"{suite.prefix}{left}_minus_{right}/{metric}"] = value
  return {"summary": found}
