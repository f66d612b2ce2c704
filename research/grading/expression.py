"""Arithmetic over exact fractions, read by recursive descent, never evaluated.

    sum     = product (("+" | "-") product)*
    product = atom (("*" | "/") atom)*
    atom    = digits | "(" sum ")"

Powers, floor division, names, signs, decimals and long texts are not in the
grammar; so the value of what is in it is cheap to compute.
"""

import dataclasses
import re
from fractions import Fraction

LONGEST, DEEPEST = 200, 20
_TOKEN = re.compile(r"[0-9]{1,9}(?![0-9])|[-+*/()]")
_SPELLINGS = str.maketrans("×÷−·", "*/-*")


@dataclasses.dataclass(frozen=True)
class Expression:
  """The numbers an expression uses, sorted, and its value.

  `value` is None where it divides by zero.
  """

  numbers: tuple[int, ...]
  value: Fraction | None


def parse(text: str) -> Expression | None:
  """Reads an expression; None when the text is not one of the grammar."""
  text = text.strip().translate(_SPELLINGS)
  tokens = _tokens(text)
  if not tokens:
    return None
  read = _sum(tokens, 0, 0)
  if read is None or read[1] != len(tokens):
    return None
  numbers = tuple(sorted(int(t) for t in tokens if t.isdigit()))
  return Expression(numbers, read[0])


def _tokens(text: str) -> list[str] | None:
  """Splits into numbers and signs; None where anything else stands."""
  if len(text) > LONGEST:
    return None
  tokens = _TOKEN.findall(text)
  whole = "".join(tokens) == re.sub(r"[ \t]", "", text)
  # `1 2` and `* *` lose their gap in that comparison.
  split = re.search(r"[0-9][ \t]+[0-9]", text)
  return tokens if whole and not split else None


# Each rule returns (value, next position), or None where the text breaks it.
_Read = tuple[Fraction | None, int] | None


def _sum(tokens: list[str], at: int, depth: int) -> _Read:
  """A chain of `+` and `-`, from the left."""
  left = _product(tokens, at, depth)
  while left and tokens[left[1] : left[1] + 1] in (["+"], ["-"]):
    right = _product(tokens, left[1] + 1, depth)
    left = right and (_apply(tokens[left[1]], left[0], right[0]), right[1])
  return left


def _product(tokens: list[str], at: int, depth: int) -> _Read:
  """A chain of `*` and `/`, from the left."""
  left = _atom(tokens, at, depth)
  while left and tokens[left[1] : left[1] + 1] in (["*"], ["/"]):
    right = _atom(tokens, left[1] + 1, depth)
    left = right and (_apply(tokens[left[1]], left[0], right[0]), right[1])
  return left


def _atom(tokens: list[str], at: int, depth: int) -> _Read:
  """A number or a parenthesis."""
  if at >= len(tokens) or depth > DEEPEST:
    return None
  if tokens[at].isdigit():
    return Fraction(tokens[at]), at + 1
  inner = _sum(tokens, at + 1, depth + 1) if tokens[at] == "(" else None
  closed = inner and tokens[inner[1] : inner[1] + 1] == [")"]
  return (inner[0], inner[1] + 1) if inner and closed else None


def _apply(
  sign: str, left: Fraction | None, right: Fraction | None
) -> Fraction | None:
  """One operation; None stands for a division by zero, once made."""
  if left is None or right is None or (sign == "/" and right == 0):
    return None
  if sign == "+":
    return left + right
  if sign == "-":
    return left - right
  return left * right if sign == "*" else left / right
