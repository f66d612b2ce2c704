"""Is an answer the gold answer? Parsed with size caps, never evaluated."""

import atexit
import functools
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from concurrent import futures
from fractions import Fraction

from research.grading import algebra, extract, notation, pool, quantity
from research.types import Verdict

# What grading by algebra may take of one answer, and by how many processes.
SECONDS, WORKERS = 5.0, min(4, os.cpu_count() or 1)
# Longer texts, and lists of more items, are compared letter by letter.
LONGEST_TEXT, MOST_ITEMS = 4000, 30

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


class _Unfinished(Exception):
  """Grading came to no end; the argument is the kind of verdict."""


def grade(
  gold: str, answer: str | None, *, seconds: float = SECONDS
) -> Verdict:
  """The verdict on an answer: equal in meaning to the gold, or not.

  Numbers, and what is built of them, are compared exactly and at once; the
  rest goes to a process that is killed after `seconds` of work on this answer.
  Of an inequality and its interval, as math-verify has it, the gold says the
  form: an interval answers an inequality, and not the other way round. So does
  an equation answer the value that it ends on.
  One that takes longer is worth nothing ("timeout"); where the grader itself
  fails, or the gold is blank, the verdict is "error" and has no value.
  """
  if answer is None or not answer.strip():
    return unparsed()
  if not gold.strip():
    return Verdict("error", None)
  try:
    return verdict(_same(gold, answer, _Algebra(seconds)))
  except _Unfinished as unfinished:
    late = unfinished.args[0] == "timeout"
    return Verdict("timeout", 0.0) if late else Verdict("error", None)


def plainly(gold: str, answer: str) -> bool | None:
  """Whether they are equal, where that needs no algebra; else None."""

  def decide(one: str, other: str) -> bool:
    raise _Unfinished("algebra")

  try:
    return _same(gold, answer, decide)
  except _Unfinished:
    return None


def equivalent(
  gold: str, answer: str | None, *, seconds: float = SECONDS
) -> bool:
  """Whether `grade` finds the answer correct; never raises."""
  return grade(gold, answer, seconds=seconds).kind == "correct"


def grades(
  pairs: Iterable[tuple[str, str | None]], *, seconds: float = SECONDS
) -> list[Verdict]:
  """The verdicts on many (gold, answer), in order, by all workers at once."""
  one = lambda pair: grade(*pair, seconds=seconds)
  with futures.ThreadPoolExecutor(WORKERS) as threads:
    return list(threads.map(one, pairs))


_MATH = re.compile(
  r"\$\$((?:\\.|[^$\\])+)\$\$|(?<!\\)\$((?:\\.|[^$\\])+)\$"
  r"|\\\[((?:(?!\\\]).)+)\\\]|\\\(((?:(?!\\\)).)+)\\\)",
  re.DOTALL,
)
_LINK = re.compile(r"\s*(?:,|,?\s*and|,?\s*or|,?\s*\\cup)\s*")


def stated(text: str) -> str:
  """The part of a text that states the answer; the text where none stands out.

  That is a marker's content, or the last formula of a sentence together with
  those joined to it by `and`, `or` or a comma.
  """
  if extract.has_marker(text):
    return extract.final_answer(text) or ""
  found = list(_MATH.finditer(text))
  if not found:
    return text
  before, after = text[: found[0].start()], text[found[-1].end() :]
  # `$5$ cm` is an answer as it stands, and no sentence.
  sentence = re.search("[A-Za-z]{2}", before) or len(after.split()) > 2
  return _linked(text, found) if sentence or len(found) > 1 else text


def _linked(text: str, found: list[re.Match]) -> str:
  """The last formula of a sentence, with those that are joined to it."""
  at = len(found) - 1
  while at and _LINK.fullmatch(text[found[at - 1].end() : found[at].start()]):
    at -= 1
  inner = lambda match: next(x for x in match.groups() if x is not None)
  stated = inner(found[at])
  for before, match in itertools.pairwise(found[at:]):
    stated += text[before.end() : match.start()] + inner(match)
  percent = re.match(r"\s*(\\?%|percent)", text[found[-1].end() :])
  return stated + (r"\%" if percent else "")


_Decide = Callable[[str, str], bool]


def _same(gold: str, answer: str, decide: _Decide) -> bool:
  """Whether two texts state one answer; `decide` does the algebra."""
  if gold.strip() == answer.strip():
    return bool(gold.strip())
  if max(len(gold), len(answer)) > LONGEST_TEXT:
    return False
  if max(notation.depth(gold), notation.depth(answer)) > notation.DEEPEST:
    return notation.compact(gold) == notation.compact(answer)
  one, other = notation.bare(stated(gold)), notation.bare(stated(answer))
  return _same_bare(*notation.assigned(one, other), decide)


def _same_bare(one: str, other: str, decide: _Decide) -> bool:
  """Whether two bare answers are one."""
  one, other = notation.alone(one), notation.alone(other)
  known = _known(one, other)
  if known is not None:
    return known
  left, right = notation.parts(one), notation.parts(other)
  if left and right:
    return _same_parts(left, right, decide)
  if (left or right) and (quantity.read(one) or quantity.read(other)):
    return False
  if not (notation.readable(one) and notation.readable(other)):
    return False
  value = notation.last_side(other) if "=" not in one else ""
  if value and _same_bare(one, notation.bare(value), decide):
    return True
  if notation.only_solved(one, other) or notation.only_solved(other, one):
    return False
  return decide(one, other)


def _known(one: str, other: str) -> bool | None:
  """What needs no algebra: numbers, identical texts, choices, words."""
  if not one or not other:
    return False
  left, right = quantity.read(one), quantity.read(other)
  if left and right:
    return quantity.equal(left, right) and not quantity.units_differ(one, other)
  if notation.compact(one) == notation.compact(other):
    return True
  if notation.joined_otherwise(one, other):
    return False
  for form in (quantity.in_base, quantity.ratio):
    left, right = form(one), form(other)
    if left is not None and right is not None:
      return left == right
  letters = notation.choice(one), notation.choice(other)
  if any(letters):
    return letters[0] == letters[1]
  left, right = notation.words(one), notation.words(other)
  if left is not None or right is not None:
    return left == right
  return None


def _same_parts(
  left: notation.Parts, right: notation.Parts, decide: _Decide
) -> bool:
  """Whether two tuples, intervals, sets or lists hold the same.

  Order counts between round or square brackets; a list without any has the
  order of what it is compared with.
  """
  kinds = (left.opening, left.closing), (right.opening, right.closing)
  if kinds[0] != kinds[1] and ("", "") not in kinds:
    return False
  if max(len(left.items), len(right.items)) > MOST_ITEMS:
    return left == right
  same = lambda a, b: _same_bare(
    *notation.assigned(notation.bare(a), notation.bare(b)), decide
  )
  free = {kind[0] for kind in kinds} <= {"", "\\{"}
  sets = kinds[0] == kinds[1] == ("\\{", "\\}")
  if len(left.items) != len(right.items) and not sets:
    return False
  if not free:
    return all(map(same, left.items, right.items))
  rest = list(right.items)
  for item in left.items:
    match = next((i for i, x in enumerate(rest) if same(item, x)), None)
    if match is None:
      return False
    if not sets:
      del rest[match]
  return not sets or all(
    any(same(a, b) for a in left.items) for b in right.items
  )


@functools.cache
def _pool() -> pool.Pool:
  """The workers of `algebra`, which start when first asked."""
  program = [sys.executable, "-I", algebra.__file__]
  workers = pool.Pool(program, workers=WORKERS, seconds=SECONDS)
  atexit.register(workers.close)
  return workers


class _Algebra:
  """Asks the workers, for so many seconds of their work in all."""

  def __init__(self, seconds: float):
    self._left = seconds

  def __call__(self, one: str, other: str) -> bool:
    """What a worker finds; False where it cannot read one of them."""
    if quantity.units_differ(one, other):
      return False
    if self._left <= 0:
      raise _Unfinished("timeout")
    pair = [quantity.without_unit(one), quantity.without_unit(other)]
    said = _pool().ask(pair, self._left)
    self._left -= said.seconds
    if said.kind == "error" or (said.kind == "done" and "error" in said.value):
      raise _Unfinished("error")
    if said.kind == "timeout" or "beyond" in said.value:
      raise _Unfinished("timeout")
    return bool(said.value["same"])
