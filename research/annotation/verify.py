"""What its task's reward does not find correct is not kept."""

from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Sifted
from research.types import Trace


def sift(
  traces: Sequence[Trace], about: About, *, in_a_row: int | None = None
) -> Sifted:
  """Keeps what is rewarded as correct; reasons are the other verdicts.

  A grader's "error" or "timeout" is counted apart from a "wrong" answer. Raises
  ValueError after `in_a_row` rejections: of a solver they are no bad luck.
  """
  found = gates.split(traces, lambda trace: gates.wrong(about.task, trace))
  reasons = {id(trace): reason for trace, reason in found.dropped}
  streak = 0
  for trace in traces:
    streak = streak + 1 if id(trace) in reasons else 0
    if streak == in_a_row:
      kind, detail = reasons[id(trace)]
      raise ValueError(
        f"the reward of {about.task.__name__} rejects {streak} traces in a "
        f"row, the last as {kind}: {detail!r}"
      )
  return found
