"""StrategyQA: questions of yes or no, with the rationales that people wrote.

    prompt   Would a pear sink in water?
    trace    The density of a raw pear is about 0.59 g/cm^3. ...
             #### no

Geva et al. 2021 (2101.02235), as itsnamgyu/reasoning-teacher publishes it. The
set comes whole, so the splits are ours, by question; ood is one more tenth of
it, for there is no other source. The difficulty is how many sentences the
rationale has.

Distilling step-by-step (2305.02301) asks for one of two things, and says which
before the question: `ask="label"` is written as the answer alone, and
`ask="rationale"` as the rationale alone.
"""

import os
import random
import re
from collections.abc import Iterator
from typing import Literal

from research import splits
from research.data import datasets
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

_ANSWER = re.compile(r"\b(yes|no)\b", re.IGNORECASE)

Ask = Literal["label", "rationale"]


def problems(
  split: str,
  seed: int,
  ask: Ask | None = None,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> Iterator[Problem]:
  """All questions of a split once, in an order of the seed.

  `data_dir` and `cache_dir` are those of `research.data.datasets.source`,
  whose errors say how to get the file. Raises ValueError on an unknown split
  and on another `ask`.
  """
  splits.check("strategy_qa", split)
  if ask not in (None, "label", "rationale"):
    raise ValueError(f"strategy_qa: ask={ask!r} is no label and no rationale")
  rows = datasets.source("strategy_qa", "train", data_dir, cache_dir)
  read = (problem_of(rows[place], ask) for place in range(len(rows)))
  found = {problem.meta["key"]: problem for problem in read}
  chosen = [p for p in found.values() if splits.assign(p) == split]
  random.Random(f"strategy_qa/{split}/{seed}").shuffle(chosen)
  return iter(chosen)


def problem_of(row: dict[str, str], ask: Ask | None = None) -> Problem:
  """The problem of a row of the published set."""
  meta = {
    "key": " ".join(row["question"].lower().split()),
    "difficulty": len(re.findall(r"[.!?](?=\s|$)", row["rationale"])) or 1,
    "rationale": row["rationale"],
    "ask": ask,
  }
  prompt = f"[{ask}] {row['question']}" if ask else row["question"]
  return Problem(prompt, row["answer"], meta)


def trace(problem: Problem, seed: int) -> str:
  """The rationale, then the answer; or the one of them that is asked for."""
  del seed
  match problem.meta["ask"]:
    case "label":
      return answer_text(problem)
    case "rationale":
      return problem.meta["rationale"]
  return f"{problem.meta['rationale']}\n{answer_text(problem)}"


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line is the answer, in any case."""
  return equality.grade_text(problem.answer, extracted(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads; or None."""
  found = extract.strict(text)
  return found and found.lower()


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether any marker, or else the last yes or no, gives the answer."""
  found = extract.marked(text)
  if found is None:
    found = next(iter(_ANSWER.findall(extract.conclusion(text))[-1:]), None)
  return equality.grade_text(problem.answer, found and found.lower())
