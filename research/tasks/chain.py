"""A chain of small operations modulo 10, worked from the left.

    prompt   3a+4b*9c-1       each step counts from the left, mod 10
    trace    a3+4=7b7*9=3c3-1=2
             #### 2

Letters name the steps in order, so that a step is found by its name and not by
counting those before it. Multipliers are 3, 7 and 9, which are invertible
modulo 10, so that every operation matters to the answer: a `*5` or `*0` would
wipe out what came before and reward guessing. The difficulty is the number of
operations.
"""

import random
import re
import string
from collections.abc import Iterator, Sequence

from research import splits
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS
LENGTHS = {"train": (2, 5), "test": (2, 5), "ood": (6, 9)}
NAMES = string.ascii_lowercase

_OPERANDS = {"+": "123456789", "-": "123456789", "*": "379"}


def problems(
  split: str, seed: int, lengths: Sequence[int] | None = None
) -> Iterator[Problem]:
  """Chains of lo..hi operations without end; `lengths=(lo, hi)`.

  By default those of `LENGTHS[split]`. Raises ValueError on an unknown split,
  on lengths out of order, and when a split has no new problem left.
  """
  splits.check("chain", split)
  bounds = LENGTHS[split] if lengths is None else lengths
  levels = splits.span("chain", "lengths", bounds, least=1)
  if levels[-1] > len(NAMES):
    raise ValueError(
      f"chain: lengths={tuple(bounds)}; a chain has {len(NAMES)} steps at most"
    )
  return splits.stream("chain", split, seed, levels, _draw)


def trace(problem: Problem, seed: int) -> str:
  """The running values, then the answer; there is one way, whatever the seed.

  Raises ValueError when the prompt is no chain.
  """
  del seed
  return work(problem.prompt) + "\n" + answer_text(problem)


def work(prompt: str) -> str:
  """The running values of a chain: each step restates what it consumes."""
  names, signs, operands = (prompt[i::3] for i in (1, 2, 3))
  formed = re.fullmatch(r"[0-9]([a-z][-+*][0-9])+", prompt)
  if not formed or not NAMES.startswith(names):
    raise ValueError(f"{prompt[:80]!r} is not a chain such as 3a+4b*9c-1")
  value, steps = int(prompt[0]), []
  for name, sign, operand in zip(names, signs, operands, strict=True):
    after = _apply(value, sign, int(operand))
    steps.append(f"{name}{value}{sign}{operand}={after}")
    value = after
  return "".join(steps)


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line holds the answer."""
  return equality.grade_number(problem.answer, extract.strict(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, as equal answers share it; or None."""
  return equality.canonical(extract.strict(text))


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether any marker, or else the last number, gives the answer."""
  return equality.grade_number(problem.answer, extract.lenient(text))


def _draw(rng: random.Random, length: int) -> Problem:
  """Any chain of `length` operations."""
  prompt = rng.choice("0123456789")
  for name in NAMES[:length]:
    sign = rng.choice("+-*")
    prompt += name + sign + rng.choice(_OPERANDS[sign])
  meta = {"key": prompt, "difficulty": length}
  return Problem(prompt, work(prompt)[-1], meta)


def _apply(value: int, sign: str, operand: int) -> int:
  """One operation modulo 10."""
  if sign == "*":
    return value * operand % 10
  return (value + operand if sign == "+" else value - operand) % 10
