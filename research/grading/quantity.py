r"""Numbers as they are written, exactly, and the units behind them."""

import collections
import dataclasses
import re
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class Value:
  """A number as it was written; `percent` has not divided it by 100."""

  number: Fraction
  decimal: bool = False
  percent: bool = False


_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = rf"(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_DECIMAL = re.compile(rf"([+-]?)\s*({_NUMBER})")
_RATIO = re.compile(
  r"([+-]?)\s*(?:([0-9]+)\s*(?:\s|(?=\\)))?(?:"
  r"\\frac\s*(?:\{\s*([+-]?\s*[0-9]+)\s*\}|([0-9]))\s*"
  r"(?:\{\s*([0-9]+)\s*\}|([0-9]))"
  r"|\(?([0-9]+)\)?\s*/\s*\(?([0-9]+)\)?)"
)
_POWER = re.compile(
  rf"([+-]?)\s*(?:({_NUMBER})\s*(?:[eE]\s*|(?:\\times|\\cdot|\*|x)\s*10\s*"
  rf"(?:\^|\*\*)\s*)|10\s*(?:\^|\*\*)\s*)"
  r"(?:\{\s*([+-]?[0-9]{1,3})\s*\}|([+-]?[0-9]{1,3}))"
)
_PERCENT = re.compile(
  r"\s*(?:\\?%|percent|\\text\s*\{\s*(?:%|percent)\s*\}|per cent|pct)$"
)


def read(text: str) -> Value | None:
  """The exact number that a bare text writes, or None.

  Thousands, decimals, fractions, mixed numbers, powers of ten and percents.
  """
  if len(text) > 200:
    return None
  plain, found = _PERCENT.subn("", text, count=1)
  read = _plain(plain)
  if read is None:
    read = _plain(_unitless(plain)[0])
  return read and dataclasses.replace(read, percent=bool(found))


def _plain(text: str) -> Value | None:
  """A number without percent and unit."""
  if re.fullmatch(r"[0-9]{1,3}(?: [0-9]{3})+", text):
    text = text.replace(" ", "")
  if match := _DECIMAL.fullmatch(text):
    written = match[2].replace(",", "").rstrip(".")
    return Value(Fraction(match[1] + written), "." in written)
  if match := _RATIO.fullmatch(text):
    top = Fraction((match[3] or match[4] or match[7]).replace(" ", ""))
    bottom = Fraction(match[5] or match[6] or match[8])
    if not bottom or (match[2] and top < 0):
      return None
    return Value((top / bottom + int(match[2] or 0)) * _sign(match[1]))
  if match := _POWER.fullmatch(text):
    lead = Fraction((match[2] or "1").replace(",", "").rstrip("."))
    power = Fraction(10) ** int(match[3] or match[4])
    return Value(lead * power * _sign(match[1]), True)
  return None


def ratio(text: str) -> tuple[Fraction, ...] | None:
  """`2:4:6` as 1, 2 and 3 times its first; None where it is no such ratio."""
  if not re.fullmatch(r"\s*[1-9][0-9]{0,9}(?:\s*:\s*[0-9]{1,9}){2,9}\s*", text):
    return None
  first, *rest = map(int, text.split(":"))
  return tuple(Fraction(n, first) for n in rest)


def _sign(text: str) -> int:
  """What a sign in front multiplies by."""
  return -1 if text == "-" else 1


def equal(gold: Value, other: Value) -> bool:
  """Whether two numbers are one; `50%` is both 1/2 and, as written, 50.

  A decimal counts as what it rounds, to six places: 0.333333 is 1/3 and 0.33
  is not.
  """
  if gold.percent == other.percent:
    return _close(gold, other)
  percent, plain = (gold, other) if gold.percent else (other, gold)
  share = dataclasses.replace(percent, number=percent.number / 100)
  return _close(percent, plain) or _close(share, plain)


def _close(one: Value, other: Value) -> bool:
  """Equal, or equal to six places where one is a decimal."""
  a, b = one.number, other.number
  if a == b or not (one.decimal or other.decimal):
    return a == b
  largest = max(abs(a), abs(b))
  return round(a, 6) == round(b, 6) and abs(a - b) <= largest / 100_000


_ALIASES = {
  name: names.split()[0]
  for names in (
    "cm centimeter centimeters centimetre centimetres",
    "mm millimeter millimeters millimetre millimetres",
    "km kilometer kilometers kilometre kilometres",
    "m meter meters metre metres",
    "in inch inches",
    "ft foot feet",
    "yd yard yards",
    "mi mile miles",
    "mg milligram milligrams",
    "kg kilogram kilograms",
    "g gram grams",
    "lb lbs pound pounds",
    "oz ounce ounces",
    "ml milliliter milliliters",
    "l liter liters litre litres",
    "s sec secs second seconds",
    "min mins minute minutes",
    "h hr hrs hour hours",
    "day days",
    "week weeks",
    "month months",
    "year years",
    "degree degrees",
    "cent cents",
    "dollar dollars",
  )
  for name in names.split()
}
_NO_UNITS = {
  "pi", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "sqrt", "exp",
  "mod", "and", "or", "not", "inf", "infinity", "nan", "i", "e", "is", "to",
}  # fmt: skip
_UPRIGHT = r"\\(?:text(?:rm|bf|it|sf|up|normal)?|mathrm|mbox|operatorname)"
_UNIT = re.compile(
  rf"(?:\s*{_UPRIGHT}\s*\{{([^{{}}0-9]*)\}}"
  r"|(?:(?<=[0-9}).])|(?<=\\pi)(?=\s))(?P<gap>\s*)"
  r"(?P<words>[a-zA-Z][a-zA-Z.]*(?:[ /]+[a-zA-Z][a-zA-Z.]*)*))"
  r"\s*(?P<power>\^\s*\{?\s*[23]\s*\}?)?$"
)
# `\text{m}/\text{s}^{2}`, `\mathrm{N}\cdot\mathrm{m}`, `\mathrm{m/s^2}`,
# `\frac{\text{m}}{\text{s}}`.
_RAISED = r"(?:\^\s*(?:\{\s*-?\s*[1-9]\s*\}|-?\s*[1-9]))"
_ATOM = rf"(?:{_UPRIGHT}\s*\{{[a-zA-Z.\s/]*{_RAISED}?\s*\}}(?:\s*{_RAISED})?)"
_COMPOUND = re.compile(
  rf"\s*(?:{_ATOM}(?:\s*(?:(?:/|\\cdot|\\times|\*)\s*)?{_ATOM})+"
  rf"|\\frac\s*\{{\s*{_ATOM}\s*\}}\s*\{{\s*{_ATOM}\s*\}}"
  rf"|{_UPRIGHT}\s*\{{[a-zA-Z.\s/]*[a-zA-Z]\s*{_RAISED}[a-zA-Z.\s/]*"
  rf"{_RAISED}?\s*\}})\s*$"
)
_ORDINAL = re.compile(
  r"(?<=[0-9])\s*(?:\^\s*\{?)?\s*(?:"
  rf"{_UPRIGHT}\s*\{{\s*)?(?:st|nd|rd|th)\s*\}}?\s*\}}?$"
)
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree)\s*[CF]?$")
_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)(?![a-z])")


def _unitless(text: str) -> tuple[str, str]:
  """A text without the unit at its end, and that unit; "" where it has none."""
  if (match := _DEGREES.search(text)) and not _ANGLE.search(text):
    return text[: match.start()].strip(), "degree"
  if match := _ORDINAL.search(text):
    return text[: match.start()].strip(), "ordinal"
  if (match := _COMPOUND.search(text)) and text[: match.start()].strip():
    return text[: match.start()].strip(), match[0]
  match = _UNIT.search(text)
  if not match:
    return text, ""
  words = match["words"]
  if words is not None:
    names = words.replace("/", " ").split()
    if not _are_units(names, bool(match["gap"])):
      return text, ""
  named = (words or match[1] or "").strip().strip(".").lower()
  rest = text[: match.start()].strip()
  if not rest or set(named.split()) & _NO_UNITS:
    return text, ""
  power = re.sub(r"[^23]", "", match["power"] or "")
  return rest, _ALIASES.get(named, named) + power


def _are_units(names: list[str], gap: bool) -> bool:
  """Whether words behind a number are a unit: not `3t`, `2 pi`, `x dx`."""
  letters = {name for name in names if len(name) == 1}
  if letters and not (gap and letters <= set("mgshlLN")):
    return False
  lower = [name.lower() for name in names]
  if len(lower) > 3 or set(lower) & _NO_UNITS:
    return False
  return len(lower[0]) != 2 or lower[0] in _ALIASES


def without_unit(text: str) -> str:
  """A bare text without the unit at its end."""
  return _unitless(text)[0]


def units_differ(one: str, other: str) -> bool:
  """Whether both have a unit that is known, and not the same."""
  units = [_powers(_unitless(text)[1]) for text in (one, other)]
  known = {*_ALIASES.values()}
  return units[0] != units[1] and all(u and u.keys() <= known for u in units)


def _powers(unit: str) -> dict[str, int]:
  """The names in a unit with their powers, negative behind a bar."""
  unit = re.sub(r"\\frac\s*\{(.*)\}\s*\{(.*)\}", r"\1/\2", unit)
  plain = re.sub(rf"{_UPRIGHT}|\\cdot|\\times", " ", unit).lower()
  powers: dict[str, int] = collections.defaultdict(int)
  name, sign = "", 1
  tokens: list[str] = re.findall(r"[a-z]+|-?[1-9]|/", plain)
  for token in tokens:
    if token == "/":
      sign = -1
    elif token.isalpha():
      name = _ALIASES.get(token, token)
      powers[name] += sign
    elif name:
      powers[name] += sign * (int(token) - 1)
  return dict(powers)


_BASED = re.compile(r"([0-9][0-9a-zA-Z]{0,99})_\{?([0-9]{1,2})\}?")


def in_base(text: str) -> int | None:
  """The value of digits with their base, `101_2`; None where it is none."""
  match = _BASED.fullmatch(text.replace(" ", ""))
  try:
    return int(match[1], int(match[2])) if match else None
  except ValueError:
    return None
