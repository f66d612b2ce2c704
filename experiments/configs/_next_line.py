"""Products of which the line behind the beginning alone is graded.

SCoRe's reward of the key step (2509.14257): what comes after it earns nothing.
"""

from research.tasks import multiplication
from research.types import Problem, Verdict

SPLITS = multiplication.SPLITS
problems = multiplication.problems
trace = multiplication.trace
first_error = multiplication.first_error
answer_text = multiplication.answer_text
lenient = multiplication.lenient


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the first line that an answer adds to its beginning is right."""
  found = first_error(problem, text)
  begun = len(problem.begun.strip().splitlines())
  if found is None or found[0] > begun:
    return Verdict("correct", 1.0)
  return Verdict("wrong", 0.0)
