"""Where an attempt first goes wrong, and what may be built on its beginning.

SCoRe (Lyu et al. 2025, 2509.14257): a teacher mends the first wrong step of a
student's attempt, and the student learns on from its own right beginning.
"""

from typing import Any, NamedTuple

from research.types import Problem


class Slip(NamedTuple):
  """The right lines that an attempt begins with, and the line that follows.

  `begun` is the attempt's own text to the letter, with the end of its last line
  where more follows; `line` is what should come next, "" where nothing should.
  """

  begun: str
  line: str

  @property
  def mended(self) -> str:
    """The beginning and the line that follows it, without an end."""
    gap = "\n" if self.begun and not self.begun.endswith("\n") else ""
    return f"{self.begun}{gap}{self.line}"


def find(task: Any, problem: Problem, text: str) -> Slip | None:
  """Returns an attempt's first slip by the task's `first_error`, or None."""
  found = task.first_error(problem, text)
  if found is None:
    return None
  place, line = found
  if not place:
    return Slip("", line)
  said = text.strip()  # as lines are counted
  long = sum(len(x) + 1 for x in said.split("\n")[:place])
  start = len(text) - len(text.lstrip())
  return Slip(text[: start + min(long, len(said))], line)
