"""HumanEval: a function to write from its head and its docstring.

    prompt   Complete this function. Answer with the whole of it in a block
             of Python.
             def below_zero(operations: List[int]) -> bool: ...
    trace    ```python
             def below_zero(operations: List[int]) -> bool: ...
             ```

All 164 are test, and nothing is train or ood: to learn from them would make
every score with them worthless. The difficulty is how many lines the reference
solution has. Rewards run the answer: see `research.grading.sandbox`.
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

_ASK = (
  "Complete this function. Answer with the whole of it in a block of Python.\n"
)


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
  splits.check("humaneval", split)
  if split != "test":
    return iter(())
  rows = datasets.source("humaneval", "test", data_dir, cache_dir)
  mixed = splits.shuffled(rows, f"humaneval/{seed}")
  return (problem_of(row) for row in mixed)


def problem_of(row: dict[str, str]) -> Problem:
  """The problem of a row; what stands before the function goes before answers.

  The tests have that part too, so that an answer cannot redefine what they use.
  """
  prompt, entry = row["prompt"], row["entry"]
  start = prompt.rfind(f"def {entry}(")
  if start < 0:
    raise ValueError(f"humaneval: {row['key']} does not begin `def {entry}(`")
  solution = prompt[start:] + row["solution"]
  meta = {
    "key": row["key"],
    "difficulty": len(row["solution"].strip().splitlines()),
    "before": f"{prompt[:start]}\n",
    "tests": f"{prompt[:start]}\n{row['test']}\ncheck({entry})\n",
  }
  return Problem(f"{_ASK}{prompt.strip()}", solution.strip(), meta)
