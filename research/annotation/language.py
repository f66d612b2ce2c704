"""The script of a trace; a script is not a language, but tells many apart."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.types import Trace


def sift(
  traces: Sequence[Trace],
  about: About,
  *,
  scripts: Sequence[str] = ("LATIN",),
  share: float = 0.95,
) -> Sifted:
  """Keeps traces of whose letters at least `share` belong to `scripts`.

  A script is how Unicode's names of its letters begin: "LATIN", "CYRILLIC",
  "CJK", "HIRAGANA". Digits and signs are no letters, mathematical ones are
  Latin; a trace without letters is kept. French and German it cannot tell
  apart, and a wrong language in the right script goes through.
  """
  del about

  def judge(trace: Trace) -> Reason | None:
    plain = unicodedata.normalize("NFKC", trace.text or "")
    letters = {x: n for x, n in Counter(plain).items() if x.isalpha()}
    whole = sum(letters.values())
    fitting = sum(
      n
      for x, n in letters.items()
      if unicodedata.name(x, "").startswith(tuple(scripts))
    )
    if fitting >= share * whole:
      return None
    return Reason("another script", f"{fitting} of {whole} letters")

  return gates.split(traces, judge)
