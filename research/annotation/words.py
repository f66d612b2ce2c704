"""Text as words, for comparing texts: case, layout and punctuation aside."""

import re
import unicodedata
from collections.abc import Sequence

# A letter of Chinese or Japanese stands for a word: nothing parts theirs.
_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+")
_SYMBOL = re.compile(rf"{_WORD.pattern}|[^\w\s]")


def words(text: str) -> list[str]:
  """The words of a text, numbers among them."""
  return _WORD.findall(_normal(text))


def symbols(text: str) -> list[str]:
  """Its words and, each alone, all other signs."""
  return _SYMBOL.findall(_normal(text))


def _normal(text: str) -> str:
  return unicodedata.normalize("NFKC", text).casefold()


def grams(found: Sequence[str], n: int) -> list[str]:
  """Every n words in a row; all of them together where they are fewer."""
  last = max(1, len(found) - n + 1)
  return [" ".join(found[i : i + n]) for i in range(last)]
