"""What tasks share whose answer is a program: how it is asked for and judged.

A problem's `answer` is its reference solution; of its meta, `before` stands
ahead of any answer, and `tests` judge the two.
"""

from research.grading import blocks, sandbox
from research.types import Problem, Verdict


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
  return sandbox.run(problem.meta["before"] + source, problem.meta["tests"])
