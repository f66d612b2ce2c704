r"""MATH, competition problems whose answers are formulas (2103.03874).

    prompt   What is the smallest positive perfect cube that can be ...
    trace    The sum of three consecutive integers takes the form ...
             \boxed{27}

Test is MATH-500 (2305.20050), train what the training file holds less what is
in test. Nothing is ood. The difficulty is the publisher's level, 1 to 5. Rows
without an answer or a level are left out; traces want a solution, which a
training file need not have.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

from research import splits
from research.data import datasets
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS


def problems(
  split: str,
  seed: int,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  levels: Sequence[int] = (1, 5),
) -> Iterator[Problem]:
  """All problems of a split once, in an order of the seed.

  `levels=(lo, hi)` are those wanted; `data_dir` and `cache_dir` are those of
  `research.data.datasets.source`, whose errors say how to get the files. Raises
  ValueError on an unknown split.
  """
  splits.check("math", split)
  if split == "ood":
    return iter(())
  rows = datasets.source("math", split, data_dir, cache_dir)
  mixed = splits.shuffled(rows, f"math/{split}/{seed}")
  taken: set[str] = set()
  if split == "train":
    held = datasets.source("math", "test", data_dir, cache_dir)
    taken = {key_of(held[place]["question"]) for place in range(len(held))}
  return _wanted(mixed, taken, levels)


def _wanted(
  rows: Iterable[dict[str, str]], taken: set[str], levels: Sequence[int]
) -> Iterator[Problem]:
  """Problems of some levels, each key once and none that is taken."""
  low, high = levels
  for problem in map(problem_of, rows):
    key = problem.meta["key"]
    if key not in taken and low <= problem.meta["difficulty"] <= high:
      taken.add(key)
      yield problem


def problem_of(row: dict[str, str]) -> Problem:
  """The problem of a row of the file."""
  meta = {
    "key": key_of(row["question"]),
    "difficulty": int(row["level"]),
    "subject": row["subject"],
    "worked": row["worked"].strip(),
  }
  return Problem(row["question"].strip(), row["answer"].strip(), meta)


def key_of(question: str) -> str:
  """A question but for its layout: in a formula every other sign counts."""
  return " ".join(question.split())


def trace(problem: Problem, seed: int) -> str:
  """The publisher's solution; one, whatever the seed.

  Raises ValueError where the file has none.
  """
  del seed
  if not problem.meta["worked"]:
    raise ValueError(
      f"math: {problem.prompt[:60]!r} has no solution in its file; let a "
      "teacher write one"
    )
  return f"{problem.meta['worked']}\n{answer_text(problem)}"


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return rf"\boxed{{{problem.answer}}}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the final answer is equal in meaning to the problem's."""
  return equality.grade(problem.answer, extract.final_answer(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, as equal answers share it; or None."""
  return equality.canonical(extract.final_answer(text))


def lenient(problem: Problem, text: str) -> Verdict:
  """Like `reward`; without a marker the text, or the formula that ends it."""
  marked = extract.has_marker(text)
  answer = extract.final_answer(text) if marked else text
  return equality.grade(problem.answer, answer)
