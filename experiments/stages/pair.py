"""Samples become pairs: of two answers to one problem, which is preferred."""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from experiments import files, pools, samples, settings
from experiments.resolve import resolve
from experiments.settings import Problems, Run
from research.types import Problem

# CogPO's classes (2504.09802), each with what is (preferred, not) in it.
GAPS = {
  "small": ("suited", "right"),
  "medium": ("right", "wrong"),
  "large": ("suited", "wrong"),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """`suited` and `others` are JSONL files at the first `count` of `problems`.

  They hold a `key` and a `completion` a line, such as traces.jsonl and
  dropped.jsonl of experiments.stages.annotate; `{stage}` at a path's head
  stands for that stage's folder. What is right and in `suited` suits the
  student, what is right and in `others` alone does not.

  Of each problem and each of `gaps` at most `each` pairs are made: the best
  against the worst, then the second of each, and so on. A sample's score is its
  reward less `cost` a token; those of a pair differ by `margin` at least.
  """

  run: Run
  problems: Problems
  count: int
  suited: str
  others: tuple[str, ...] = ()
  gaps: tuple[Literal["small", "medium", "large"], ...] = (
    "small",
    "medium",
    "large",
  )
  each: int = 1
  cost: float = 0.0
  margin: float = 0.0

  def __post_init__(self):
    """Raises ValueError where no pair could be made."""
    if min(self.count, self.each) < 1 or not self.gaps:
      raise ValueError(
        f"pair: count is {self.count}, each {self.each} and gaps {self.gaps}; "
        "at least 1 of each is wanted"
      )
    if self.cost < 0:
      raise ValueError(f"pair: cost is {self.cost}; a length is no merit")


class Sample(NamedTuple):
  """A sample's text, its kind in GAPS, and its score."""

  text: str
  kind: str
  score: float


def _graded(
  task: Any,
  problem: Problem,
  texts: Mapping[str, bool],
  price: Callable[[str], float],
) -> list[Sample]:
  """Returns what can be graded of a problem's texts: those True are suited."""
  found = []
  for text, suited in texts.items():
    verdict = task.reward(problem, text)
    if verdict.value is None or verdict.kind in ("error", "timeout"):
      continue  # a grader that failed found nothing wrong
    kind = "wrong"
    if verdict.kind == "correct":
      kind = "suited" if suited else "right"
    found.append(Sample(text, kind, verdict.value - price(text)))
  return found


def pairs(
  config: Config, graded: Sequence[Sample]
) -> list[tuple[str, Sample, Sample]]:
  """Returns (gap, chosen, rejected) of one problem's samples.

  Of equal scores the earlier sample goes first.
  """
  found = []
  for gap in dict.fromkeys(config.gaps):
    better, worse = ([s for s in graded if s.kind == k] for k in GAPS[gap])
    best_first = sorted(better, key=lambda s: -s.score)
    worst_first = sorted(worse, key=lambda s: s.score)
    met = zip(best_first, worst_first, strict=False)
    found += [
      (gap, a, b)
      for a, b in itertools.islice(met, config.each)
      if a.score - b.score >= config.margin
    ]
  return found


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes pairs.jsonl; returns how many pairs of each gap, and from what.

  `one_kind` counts problems whose samples are all right or all wrong.

  Raises:
    ValueError: a sample is of another problem, or there is no pair.
  """
  task = resolve(config.problems.task)
  problems = pools.by_key(
    config.problems, config.count, config.run.seed, inputs
  )
  paths = (config.suited, *config.others)
  sampled, unread = samples.read(paths, inputs, problems)
  tokenizer = settings.load_tokenizer(config.run)
  price = lambda text: config.cost * len(tokenizer.encode(text))
  rows, told = [], collections.Counter(unread=unread, ungraded=0, one_kind=0)
  for key, said in sampled.items():
    graded = _graded(task, problems[key], said, price)
    told["ungraded"] += len(said) - len(graded)
    told["one_kind"] += len({s.kind == "wrong" for s in graded}) < 2
    rows += [
      {"prompt": problems[key].prompt, "key": key, "gap": gap}
      | {"chosen": chosen.text, "rejected": rejected.text}
      for gap, chosen, rejected in pairs(config, graded)
    ]
  by_gap = collections.Counter(row["gap"] for row in rows)
  counts = {"asked": len(problems), "sampled": len(sampled), **told} | {
    "pairs": {gap: by_gap[gap] for gap in GAPS}
  }
  if not rows:
    raise ValueError(f"{workdir.name}: no pair can be made: {counts}")
  files.write_lines(workdir / "pairs.jsonl", rows)
  return counts
