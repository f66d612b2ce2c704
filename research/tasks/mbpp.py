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
from collections.abc import Iterator

from research import splits
from research.data import datasets
from research.grading import programs
from research.types import Problem

SPLITS = splits.SPLITS
trace = programs.trace
answer_text = programs.answer_text
reward = programs.reward
extracted = programs.extracted
lenient = programs.lenient


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
  mixed = splits.shuffled(rows, f"mbpp/{split}/{seed}")
  return (problem_of(row) for row in mixed)


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
    "before": "",
    "tests": f"{row['setup']}\n{row['tests']}\n",
  }
  return Problem(prompt, row["code"].strip(), meta)
