"""95 % intervals over problems: Wilson, bootstrap, and a paired difference.

The unit of resampling is the problem, never the sample: k samples of one
problem share its difficulty, so treating them as k independent draws makes an
interval too narrow (Miller 2024, "Adding Error Bars to Evals").
"""

import math
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

Z = 1.959963984540054  # the normal's 97.5 % point
RESAMPLES = 4_000
CELLS = 4_000_000  # resampled cells held at once: 64 MB


class Interval(TypedDict):
  """A mean, its 95 % interval, and the number of problems behind it."""

  mean: float
  low: float
  high: float
  n: int


def wilson(successes: int, n: int) -> Interval:
  """Wilson's score interval of `successes` out of `n` problems.

  Raises ValueError unless 0 <= successes <= n and n >= 1. Wilson 1927.
  """
  if n < 1 or not 0 <= successes <= n:
    raise ValueError(
      f"wilson: need 0 <= successes <= n and n >= 1, got {successes} of {n}"
    )
  rate = successes / n
  shrink = 1 + Z * Z / n
  centre = (rate + Z * Z / (2 * n)) / shrink
  spread = rate * (1 - rate) / n + Z * Z / (4 * n * n)
  half = Z * math.sqrt(spread) / shrink
  low, high = min(centre - half, rate), max(centre + half, rate)
  return Interval(mean=rate, low=max(0.0, low), high=min(1.0, high), n=n)


def bootstrap(values: Mapping[str, float], *, seed: int) -> Interval:
  """The mean of one value a problem, with a percentile bootstrap interval.

  A problem's value already averages its samples, so drawing problems with
  replacement draws whole clusters. A single problem, or values that are all
  equal, give an interval without width: use `proportion` for rates.
  Raises ValueError where there is no problem or a value is not finite.
  """
  cells = _array("bootstrap", values)
  means = _resampled_means(cells, np.random.default_rng(seed))
  low, high = np.quantile(means, (0.025, 0.975))
  return Interval(
    mean=float(cells.mean()), low=float(low), high=float(high), n=cells.size
  )


def proportion(values: Mapping[str, float], *, seed: int) -> Interval:
  """The interval of a rate with one value in [0, 1] a problem.

  Wilson where every problem is a plain yes or no (there a bootstrap of 50
  successes in 50 would claim certainty), the bootstrap otherwise.
  """
  cells = _array("proportion", values)
  if cells.min() < 0 or cells.max() > 1:
    raise ValueError("proportion: values must lie in [0, 1]; use bootstrap")
  if np.all((cells == 0) | (cells == 1)):
    return wilson(int(cells.sum()), cells.size)
  return bootstrap(values, seed=seed)


def paired(
  left: Mapping[str, float], right: Mapping[str, float], *, seed: int
) -> Interval:
  """The mean of left - right over the same problems, paired by key.

  Raises ValueError where the two do not speak about the same problems.
  """
  if left.keys() != right.keys():
    odd = sorted(left.keys() ^ right.keys())
    raise ValueError(
      f"paired: {len(odd)} problems are in one side only, such as {odd[0]!r}; "
      "evaluate both checkpoints on the same problems"
    )
  difference = {key: left[key] - right[key] for key in sorted(left)}
  return bootstrap(difference, seed=seed)


def _array(caller: str, values: Mapping[str, float]) -> np.ndarray:
  cells = np.fromiter(values.values(), np.float64, len(values))
  if not cells.size:
    raise ValueError(f"{caller}: no problems, so there is nothing to average")
  if not np.isfinite(cells).all():
    raise ValueError(f"{caller}: a value is not finite; exclude and count it")
  return cells


def _resampled_means(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  rows = max(1, CELLS // cells.size)
  sizes = [min(rows, RESAMPLES - at) for at in range(0, RESAMPLES, rows)]
  draw = lambda size: rng.integers(cells.size, size=(size, cells.size))
  return np.concatenate([cells[draw(size)].mean(axis=1) for size in sizes])
