"""A ledger of successes: how often each skill is solved, and how that moves.

What falls short is found as in SwS (Liang et al. 2025, 2506.08989), and gets
new problems in proportion. All sums are of exact fractions: a curve that is
level has a slope of 0, where floats may say -1e-17.
"""

import collections
from collections.abc import Iterable, Mapping
from fractions import Fraction

Curve = dict[int, Fraction]  # accuracy by the first step of a period


def curves(
  answers: Iterable[tuple[str, int, bool]], every: int = 1
) -> dict[str, Curve]:
  """Returns the accuracy of each name over periods of `every` steps.

  `answers` are (name, step, solved); a period without any is left out.
  """
  counts: dict[str, dict[int, list[int]]] = {}
  for name, step, solved in answers:
    period = step // every * every
    found = counts.setdefault(name, {}).setdefault(period, [0, 0])
    found[0] += solved
    found[1] += 1
  return {
    name: {step: Fraction(*found[step]) for step in sorted(found)}
    for name, found in counts.items()
  }


def slope(curve: Curve) -> Fraction:
  """Returns the slope of a least-squares line through a curve, a step.

  One point has none: 0.
  """
  n = len(curve)
  if n < 2:
    return Fraction(0)
  middle, mean = Fraction(sum(curve), n), sum(curve.values()) / n
  spread = sum((step - middle) ** 2 for step in curve)
  rise = sum((step - middle) * (y - mean) for step, y in curve.items())
  return Fraction(rise / spread)


def weak(curve: Curve, ceiling: float = 0.5, falling: float = 0.0) -> bool:
  """Whether a curve stays below `ceiling` and has a slope below `falling`.

  SwS's rule. What is never solved at all is level, and so not weak by it: it
  is out of reach, and no answer to it differs from the others.
  """
  return max(curve.values()) < ceiling and slope(curve) < falling


def rates(
  weaknesses: Mapping[str, bool], groups: Mapping[str, str]
) -> dict[str, Fraction]:
  """Returns the share of weak names in each group; `groups` are by name."""
  found = collections.defaultdict(list)
  for name, is_weak in weaknesses.items():
    found[groups[name]].append(is_weak)
  return {group: Fraction(sum(x), len(x)) for group, x in found.items()}


def allot(
  shares: Mapping[str, Fraction | float], supply: Mapping[str, int], count: int
) -> dict[str, int]:
  """Returns how many of `count` each name in `supply` gives, by its share.

  Rounded by largest remainders, in the order of names where these tie. What a
  name cannot supply falls to the others by theirs, and where all of these are
  0 evenly. A name without a share has 0.

  Raises:
    ValueError: there is less than `count` in all, or a share below 0.
  """
  if count > sum(supply.values()):
    raise ValueError(f"{count} wanted of {sum(supply.values())} in all")
  if min(shares.values(), default=0) < 0:
    raise ValueError(f"a share is below 0: {dict(shares)}")
  given = dict.fromkeys(sorted(supply), 0)
  while left := count - sum(given.values()):
    free = [name for name in given if given[name] < supply[name]]
    wanted = [Fraction(shares.get(name, 0)) for name in free]
    for name, more in zip(free, _rounded(wanted, left), strict=True):
      given[name] = min(given[name] + more, supply[name])
  return given


def _rounded(shares: list[Fraction], count: int) -> list[int]:
  """Returns whole numbers in proportion to shares, which sum to `count`."""
  if not any(shares):
    shares = [Fraction(1)] * len(shares)
  exact = [count * share / sum(shares) for share in shares]
  whole = [x.numerator // x.denominator for x in exact]
  order = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
  for i in order[: count - sum(whole)]:
    whole[i] += 1
  return whole
