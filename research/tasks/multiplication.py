"""Long multiplication on a scratchpad, lowest digit first.

    prompt   34*27
    trace    7:4*7+0=82,3*7+2=32>832        34 * 7 = 238, read backwards
             2:4*2+0=80,3*2+0=60>086        34 * 20 = 680
             8+0+0=80,3+8+0=11,2+6+1=90>819
             #### 918

Each step restates the digits and the carry that it consumes and writes its
own digit before its carry, so no step looks further than the one before. The
difficulty is the number of digits of both factors together.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from research import splits
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS
DIGITS = {"train": ((2, 2),), "test": ((2, 2),), "ood": ((3, 2),)}


def problems(
  split: str, seed: int, digits: Sequence[Sequence[int]] | None = None
) -> Iterator[Problem]:
  """Products without end; `digits` lists how many the two factors may have.

  `digits=((3, 1), (4, 1))` draws 3x1 and 4x1 equally often; by default those of
  `DIGITS[split]`. `12*34` and `34*12` are one problem.
  Raises ValueError on an unknown split, on impossible digits, and when a split
  has no new problem left.
  """
  splits.check("multiplication", split)
  levels = [tuple(x) for x in (DIGITS[split] if digits is None else digits)]
  if not levels or any(len(x) != 2 or min(x) < 1 for x in levels):
    raise ValueError(
      f"multiplication: digits={levels} must be pairs of counts, each at least "
      "1, such as ((3, 1), (4, 1))"
    )
  return splits.stream("multiplication", split, seed, levels, _draw)


def trace(problem: Problem, seed: int) -> str:
  """The scratchpad, then the answer; there is one way, whatever the seed."""
  del seed
  a, b = problem.prompt.split("*")
  return work(int(a), int(b)) + "\n" + answer_text(problem)


def work(a: int, b: int) -> str:
  """The scratchpad of a * b: one line a digit of b, and one a running sum."""
  lines, total = [], ""
  for place, digit in enumerate(reversed(str(b))):
    steps, row = _times(str(a)[::-1], digit)
    row = "0" * place + row
    lines.append(f"{digit}:{steps}>{row}")
    if not place:
      total = row
      continue
    steps, total = _plus(total, row)
    lines.append(f"{steps}>{total}")
  return "\n".join(lines)


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def skill(problem: Problem) -> str:
  """How many digits the factors have: 3x2 of 123*45."""
  a, b = problem.prompt.split("*")
  return f"{len(a)}x{len(b)}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line holds the product."""
  return equality.grade_number(problem.answer, extract.strict(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, as equal answers share it; or None."""
  return equality.canonical(extract.strict(text))


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether any marker, or else the last number, gives the product."""
  return equality.grade_number(problem.answer, extract.lenient(text))


def first_error(problem: Problem, text: str) -> tuple[int, str] | None:
  """The first wrong line of a worked product, from 0, and what it should be.

  None where all lines are right: there is one way to write a product down. A
  line too many should be empty.
  """
  right = trace(problem, 0).split("\n")
  lines = itertools.zip_longest(text.strip().split("\n"), right, fillvalue="")
  wrong = (
    (i, ours) for i, (theirs, ours) in enumerate(lines) if theirs != ours
  )
  return next(wrong, None)


def _draw(rng: random.Random, digits: tuple[int, int]) -> Problem:
  """Any product of factors with so many digits; no leading zeros, no zero."""
  a, b = (rng.randrange(10 ** (n - 1), 10**n) for n in digits)
  meta = {"key": f"{min(a, b)}*{max(a, b)}", "difficulty": sum(digits)}
  return Problem(f"{a}*{b}", str(a * b), meta)


def _times(number: str, digit: str) -> tuple[str, str]:
  """The steps and the product of a reversed number and one digit."""
  terms = [f"{n}*{digit}" for n in number]
  return _carry(terms, [int(n) * int(digit) for n in number])


def _plus(left: str, right: str) -> tuple[str, str]:
  """The steps and the sum of two reversed numbers."""
  width = max(len(left), len(right))
  pairs = list(
    zip(left.ljust(width, "0"), right.ljust(width, "0"), strict=True)
  )
  return _carry(
    [f"{a}+{b}" for a, b in pairs], [int(a) + int(b) for a, b in pairs]
  )


def _carry(terms: list[str], values: list[int]) -> tuple[str, str]:
  """Writes one step a column, `term+carry=digit carry`, and its digits."""
  carry, steps, row = 0, [], ""
  for term, value in zip(terms, values, strict=True):
    after, digit = divmod(value + carry, 10)
    steps.append(f"{term}+{carry}={digit}{after}")
    carry, row = after, row + str(digit)
  return ",".join(steps), row + (str(carry) if carry else "")
