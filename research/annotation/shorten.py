"""Chains written in part: the first lines left out, or every line's detail.

Removal from the front, a stage at a time, moves a chain of thought inside
(Deng et al. 2024, 2405.14838); short and long chains mixed suit a small
student better than long ones alone (Li et al. 2025, 2502.12143).
"""

import dataclasses
import re
from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.types import Trace


def sift(
  traces: Sequence[Trace],
  about: About,
  *,
  lines: int = 0,
  detail: str | None = None,
) -> Sifted:
  """Removes what the regular expression `detail` matches, and the first lines.

  The last line, which holds the answer, always stays. A trace that is not
  correct any more is dropped. Figures are the mean characters before and after.
  Raises ValueError where nothing would be removed, and for a broken pattern.
  """
  if lines < 0 or (not lines and not detail):
    raise ValueError(f"shorten: lines={lines} and detail={detail!r} keep all")
  try:
    pattern = re.compile(detail or r"(?!)", re.MULTILINE)
  except re.error as error:
    raise ValueError(f"shorten: detail={detail!r}: {error}") from error

  def shorter(trace: Trace) -> Trace:
    *chain, answer = pattern.sub("", trace.text or "").split("\n")
    return dataclasses.replace(trace, text="\n".join([*chain[lines:], answer]))

  def judge(trace: Trace) -> Reason | None:
    return gates.wrong(about.task, trace)

  now = [shorter(trace) for trace in traces]
  size = lambda texts: (
    sum(len(t.text or "") for t in texts) / max(len(texts), 1)
  )
  figures = {"characters_before": size(traces), "characters_after": size(now)}
  return dataclasses.replace(gates.split(now, judge), figures=figures)
