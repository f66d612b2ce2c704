"""Is an answer the gold answer? Parsed with size caps, never evaluated."""

import re
import unicodedata
from fractions import Fraction

from research.types import Verdict

# Longer than any gold answer; bounds the cost of exact arithmetic.
LONGEST = 200

_PLAIN = re.compile(
  r"([+-]?)(?:([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]*)?|(\.[0-9]+))"
)
_RATIO = re.compile(r"([+-]?[0-9]+)\s*/\s*([0-9]+)")
_FRAC = re.compile(r"([+-]?)\\[dt]?frac\s*\{([0-9]+)\}\s*\{([0-9]+)\}")


def verdict(correct: bool) -> Verdict:
  """The verdict on an answer that could be read."""
  return Verdict("correct", 1.0) if correct else Verdict("wrong", 0.0)


def unparsed() -> Verdict:
  """The verdict on a text without a readable answer: worth nothing."""
  return Verdict("unparsed", 0.0)


def number(text: str) -> Fraction | None:
  r"""The exact value of a number as people write it, or None.

  Reads `1,234`, `$5`, `-.5`, `50%` (as 50), `3/4`, `\frac{3}{4}`, `½` and a
  trailing period; not `1e9`, `2^3`, `9**9`, `5 apples` or `1,2`.
  """
  if len(text) > LONGEST:
    return None
  text = _bare(text)
  if match := _PLAIN.fullmatch(text):
    sign, whole, part, bare = match.groups()
    digits = (whole or "0").replace(",", "") + (bare or part or "")
    return Fraction(sign + digits.rstrip("."))
  match = _RATIO.fullmatch(text)
  if match and int(match[2]):
    return Fraction(int(match[1]), int(match[2]))
  match = _FRAC.fullmatch(text)
  if match and int(match[3]):
    return int(match[1] + "1") * Fraction(int(match[2]), int(match[3]))
  return None


def _bare(text: str) -> str:
  """A number without currency, percent and full stop, in plain characters."""
  text = text.strip().strip("$").rstrip(".").removesuffix("%")
  text = text.removesuffix("\\").strip().replace("\u2212", "-")
  text = re.sub(r"^([+-]?)\\?\$", r"\1", text)
  # `½` alone; normalising inside a number would turn `2½` into 21/2.
  if text and unicodedata.decomposition(text[0]).startswith("<fraction>"):
    ratio = unicodedata.normalize("NFKC", text[0]).replace("\u2044", "/")
    return ratio if len(text) == 1 else ""
  return text


def numbers_equal(gold: str, text: str) -> bool:
  """Whether both are numbers of one value, `1.0` and `1` alike."""
  left, right = number(gold), number(text)
  return left is not None and left == right


def canonical(answer: str | None) -> str | None:
  """The form that equal numbers share (`1,200` and `1200.0` are one vote).

  What is no number stays as it is.
  """
  value = None if answer is None else number(answer)
  return answer if value is None else str(value)


def grade_number(gold: str, answer: str | None) -> Verdict:
  """The verdict on an extracted answer where the gold is a number.

  Raises ValueError when the gold is none: that is a broken data set, and
  grading against it would call every answer wrong.
  """
  if number(gold) is None:
    raise ValueError(f"the gold answer {gold[:80]!r} is not a number")
  if answer is None or number(answer) is None:
    return unparsed()
  return verdict(numbers_equal(gold, answer))


def grade_text(gold: str, answer: str | None) -> Verdict:
  """The verdict where the gold is any text: as numbers, else letter by letter.

  Runs of spaces count as one and blank space at line ends is ignored. Raises
  ValueError when the gold is blank, since then every answer would be wrong.
  """
  if not gold.strip():
    raise ValueError("the gold answer is empty")
  if answer is None or not answer.strip():
    return unparsed()
  if number(gold) is not None and number(answer) is not None:
    return verdict(numbers_equal(gold, answer))
  return verdict(_spaced(gold) == _spaced(answer))


def _spaced(text: str) -> list[str]:
  """The lines of a text, blank space normalised."""
  return [" ".join(line.split()) for line in text.strip().splitlines()]
