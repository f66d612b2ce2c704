"""Language consistency (R1, 2501.12948): the share of words in one script.

R1 counts words of the target language; here a word is of it where all of its
letters are of its script, so that English and German are one.
"""

import re
import unicodedata
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]+")


def bonus(text: str, *, scripts: Sequence[str] = ("LATIN",)) -> float:
  """Returns the share of words whose letters all belong to `scripts`.

  A script is how Unicode's names of its letters begin, see
  research.annotation.language. A text without words mixes none: 1.
  """
  words = _WORD.findall(unicodedata.normalize("NFKC", text))
  of = lambda x: unicodedata.name(x, "").startswith(tuple(scripts))
  fitting = sum(all(map(of, word)) for word in words)
  return fitting / len(words) if words else 1.0
