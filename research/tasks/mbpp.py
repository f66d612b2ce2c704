"""MBPP: a short function to write from one sentence and its tests.

    prompt   Write a function to find the similar elements from two tuples.
             Your function is to pass these tests:
             assert similar_elements((3, 4, 5, 6), (5, 7, 4, 10)) == (4, 5)
             Answer with a block of Python.
    trace    ```python
             def similar_elements(one, other): ...
             ```

Train is the publisher's; test is its test and validation, as far as the file
has them; nothing is ood. The difficulty is how many lines the reference has.
Rewards run the answer: see `research.grading.sandbox`.
"""

import os
import random
from collections.abc import Iterator

from research import splits
from research.data import datasets
from research.grading import blocks, sandbox
from research.types import Problem, Verdict

SPLITS = splits.SPLITS


def problems(
  split: str,
  seed: int,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> Iterator[Problem]:
  """All problems of a split once, in an order of the seed.

  `data_dir` and `cache_dir` are those of `research.data.datasets.source`,
  whose errors say how to get the file. Raises ValueError on an unknown split.
  """
  splits.check("mbpp", split)
  if split == "ood":
    return iter(())
  rows = datasets.source("mbpp", split, data_dir, cache_dir)
  order = random.Random(f"mbpp/{split}/{seed}").sample(
    range(len(rows)), len(rows)
  )
  return (problem_of(rows[place]) for place in order)


def problem_of(row: dict[str, str]) -> Problem:
  """The problem of a row; its set-up runs after the answer, with the tests."""
  shown = [line for line in row["tests"].splitlines() if line.strip()]
  prompt = "\n".join(
    [
      row["text"].strip(),
      "Your function is to pass these tests:",
      *shown,
      "Answer with a block of Python.",
    ]
  )
  meta = {
    "key": row["key"],
    "difficulty": len(row["code"].strip().splitlines()),
    "tests": f"{row['setup']}\n{row['tests']}\n",
  }
  return Problem(prompt, row["code"].strip(), meta)


def trace(problem: Problem, seed: int) -> str:
  """The reference solution in its block; one, whatever the seed."""
  del seed
  return answer_text(problem)


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"```python\n{problem.answer}\n```"


def reward(problem: Problem, text: str) -> Verdict:
  """What the tests say of the last block of code."""
  return _graded(problem, blocks.fenced(text))


def extracted(text: str) -> str | None:
  """The program that `reward` runs; None where there is none."""
  return blocks.fenced(text)


def lenient(problem: Problem, text: str) -> Verdict:
  """Like `reward`; without a block the text itself may be the program."""
  return _graded(problem, blocks.fenced(text) or blocks.program(text))


def _graded(problem: Problem, source: str | None) -> Verdict:
  """The verdict on a program, None where there is none."""
  if source is None:
    return Verdict("unparsed", 0.0)
  return sandbox.run(source, problem.meta["tests"])
