"""The calculations that a worked text marks, `48/2 = <<48/2=24>>24`, are right.

GSM8K's human solutions (Cobbe et al. 2021, 2110.14168) hold such marks.
"""

import re
from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.grading import equality, expression
from research.types import Trace

_MARK = re.compile(r"<<([^<>]*)>>")
_NUMBER = re.compile(r"([0-9]*)\.([0-9]+)|([0-9]+)\.?")
# A sign that stands before a number and behind none.
_SIGNED = re.compile(r"(?<![0-9)])([-+])(\([^()]*\)|[0-9]+)")


def sift(
  traces: Sequence[Trace], about: About, *, marks: bool = False
) -> Sifted:
  """Keeps traces of which every mark is right; the marks go, unless `marks`.

  A mark is right where both sides are equal exactly, "unverifiable" where one
  cannot be read. Figures are how many marks there were of each kind.
  """
  del about
  counts = {"right": 0, "wrong": 0, "unverifiable": 0}

  def judge(trace: Trace) -> Reason | None:
    found = [(check(m), m) for m in _MARK.findall(trace.text or "")]
    for kind, _ in found:
      counts[kind] += 1
    return next((Reason(*told) for told in found if told[0] != "right"), None)

  sifted = gates.split(traces, judge)
  kept = sifted.kept if marks else [_unmarked(t) for t in sifted.kept]
  return Sifted(kept, sifted.dropped, {"marks": counts})


def check(mark: str) -> str:
  """Whether `sum=number` is "right", "wrong" or "unverifiable"."""
  if len(mark) > expression.LONGEST:
    return "unverifiable"
  left, _, right = mark.rpartition("=")
  read = expression.parse(_plain(left))
  value = equality.number(right) if "/" not in right else None
  if read is None or read.value is None or value is None:
    return "unverifiable"
  return "right" if read.value == value else "wrong"


def _plain(text: str) -> str:
  """A calculation in the grammar of `expression`: no signs, no decimals.

  `//` is read as `/`: exact equality tells where it is no whole number.
  """
  text = _NUMBER.sub(_ratio, text.replace(" ", "").replace("//", "/"))
  return _SIGNED.sub(r"(0\1\2)", text)


def _ratio(match: re.Match[str]) -> str:
  """A number as whole ones of nine digits at most."""
  whole, part, alone = match.groups()
  if part is None:
    return _short(alone)
  return f"({_short(whole + part)}/{_short('1' + '0' * len(part))})"


def _short(digits: str) -> str:
  if len(digits) <= 9:
    return digits
  return f"({_short(digits[:-8])}*100000000+{digits[-8:]})"


def _unmarked(trace: Trace) -> Trace:
  return gates.rewritten(trace, _MARK.sub("", trace.text or ""))
