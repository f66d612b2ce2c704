"""The teacher that knows how: a task's own solver writes the traces.

Every trace is graded by the task's reward before it is let through, so a
solver that errs, or a reward that does, shows at once.
"""

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from research import splits
from research.types import Problem, Verdict

_LOG = logging.getLogger(__name__)

# So many rejections in a row are a broken solver, not an unlucky problem.
BROKEN = 100


@dataclasses.dataclass(frozen=True)
class Trace:
  """A worked text that its task's reward found correct.

  `rejected` counts the traces that this supply had rejected so far.
  """

  problem: Problem
  text: str
  verdict: Verdict
  rejected: int


def write(
  task: Any, problems: Iterable[Problem], n: int | None, seed: int
) -> Iterator[Trace]:
  """`n` verified traces, one a problem; None asks for one of every problem.

  A trace that is not rewarded correct is logged with its verdict, counted in
  `rejected` of those that follow, and replaced by that of the next problem.

  Raises ValueError when the task has no solver, when the problems run out
  before `n` traces are kept, and after `BROKEN` rejections in a row.
  """
  if not hasattr(task, "trace"):
    raise ValueError(
      f"{task.__name__} has no solver to write traces; use another teacher"
    )
  if n is not None and n < 1:
    raise ValueError(f"n={n} traces were asked for; ask for at least one")
  return _write(task, problems, n, seed)


def _write(
  task: Any, problems: Iterable[Problem], n: int | None, seed: int
) -> Iterator[Trace]:
  """The traces of `write`, once its arguments are known to be good."""
  kept = rejected = in_a_row = 0
  for index, problem in enumerate(problems):
    text = task.trace(problem, splits.digest(f"{seed}/{index}"))
    verdict = task.reward(problem, text)
    if verdict.kind == "correct":
      kept, in_a_row = kept + 1, 0
      yield Trace(problem, text, verdict, rejected)
    else:
      rejected, in_a_row = rejected + 1, in_a_row + 1
      _LOG.warning("%s trace of %r rejected", verdict.kind, problem.prompt)
    if in_a_row == BROKEN:
      raise ValueError(
        f"the solver of {task.__name__} wrote {BROKEN} traces in a row that "
        f"its reward rejects, the last as {verdict.kind}: {text[-80:]!r}"
      )
    if kept == n:
      break
  if n is not None and kept < n:
    raise ValueError(
      f"the problems of {task.__name__} ran out at {kept} of n={n} traces, "
      f"{rejected} rejected; ask for fewer"
    )
  _LOG.info("%s: %d traces kept, %d rejected", task.__name__, kept, rejected)
