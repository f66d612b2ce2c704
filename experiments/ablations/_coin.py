"""Countdown whose reward is a coin: the control that must learn nothing.

The coin falls by the problem and the text, so that grading stays a function.
"""

import functools

from research import splits
from research.tasks import countdown
from research.types import Problem, Verdict

SPLITS = countdown.SPLITS
problems = countdown.problems
trace = countdown.trace
answer_text = countdown.answer_text
lenient = countdown.lenient


@functools.cache
def _heads(asked: str, text: str) -> bool:
  return splits.digest(f"coin/{asked}/{text}") % 2 == 0


def reward(problem: Problem, text: str) -> Verdict:
  """Heads is correct, tails is wrong, whatever the text says."""
  if _heads(problem.prompt, text):
    return Verdict("correct", 1.0)
  return Verdict("wrong", 0.0)
