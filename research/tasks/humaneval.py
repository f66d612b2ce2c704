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
import random
from collections.abc import Iterator

from research import splits
from research.data import datasets
from research.grading import blocks, sandbox
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

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
  order = random.Random(f"humaneval/{seed}").sample(range(len(rows)), len(rows))
  return (problem_of(rows[place]) for place in order)


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
    "before": prompt[:start],
    "tests": f"{prompt[:start]}\n{row['test']}\ncheck({entry})\n",
  }
  return Problem(f"{_ASK}{prompt.strip()}", solution.strip(), meta)


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
  source = f"{problem.meta['before']}\n{source}"
  return sandbox.run(source, problem.meta["tests"])
