"""The teacher that knows how: a task's own solver writes the traces."""

from collections.abc import Iterable, Iterator
from typing import Any

from research import splits
from research.types import Problem, Trace


def write(
  task: Any, problems: Iterable[Problem], n: int, seed: int
) -> Iterator[Trace]:
  """`n` traces a problem, seeded by the problem's place and the sample.

  A ValueError of the solver is the error of a trace. Raises ValueError when
  the task has no solver.
  """
  if not hasattr(task, "trace"):
    raise ValueError(
      f"{task.__name__} has no solver to write traces; use another teacher"
    )
  return _write(task, problems, n, seed)


def _write(
  task: Any, problems: Iterable[Problem], n: int, seed: int
) -> Iterator[Trace]:
  """The traces of `write`, once the task is known to be good."""
  for index, problem in enumerate(problems):
    for sample in range(n):
      # A first sample's seed does not depend on how many follow.
      purpose = f"{seed}/{index}" + (f"/{sample}" if sample else "")
      try:
        text = task.trace(problem, splits.digest(purpose))
      except ValueError as error:
        yield Trace(problem, None, sample, "error", error=str(error))
      else:
        yield Trace(problem, text, sample, "stop")
