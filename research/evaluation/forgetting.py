"""What a student gains and forgets as one training stage follows another.

The matrix R has a row a student, in the order in which each was trained from
the one before, and a column a suite. Of suite j the last student T has

    forgotten   max over i < T of R[i, j]  -  R[T, j]
    gained      R[T, j] - R[T-1, j]

Forgetting is that of Chaudhry et al. 2018 (1801.10112, equation 3); backward
transfer in Lopez-Paz and Ranzato 2017 (1706.08840) compares with the student
that was trained on suite j itself, not with the best. Of a loss less is better:
there both have the other sign, so that a gain is always good.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.evaluation import summary
from research.evaluation.intervals import Interval

LOSSES = ("nats", "tokens")  # metrics of which less is better


def cell(column: str, student: str) -> str:
  """The summary's name for a student in the column "suite/metric" or "metric".

  >>> cell("hard/pass@1", "base")
  'hard/base/pass@1'
  """
  suite, slash, metric = column.rpartition("/")
  return f"{suite}{slash}{student}/{metric}"


def matrix(
  found: Mapping[str, Any], order: Sequence[str], columns: Sequence[str]
) -> np.ndarray:
  """The means of students, in the order of training, on suites.

  Raises ValueError naming an entry that the summary lacks.
  """
  return np.array(
    [[summary.mean(_entry(found, c, s)) for c in columns] for s in order]
  )


def measure(
  found: Mapping[str, Any], order: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
  """Gain and forgetting of the last student by column, with what they compare.

  Each is a paired Interval, which the summary holds as a difference of two
  students, in whichever order; `best` names the earlier student that the last
  is compared with. Its choice is by the same numbers, which makes forgetting
  look a little larger than it is. Raises ValueError where there are fewer than
  two students, and naming an entry or a difference that the summary lacks.
  """
  if len(order) < 2:
    raise ValueError("forgetting: one student alone has nothing to forget")
  rows = matrix(found, order, columns)
  told = {}
  for j, column in enumerate(columns):
    sign = -1 if _is_loss(column) else 1
    best = order[int((sign * rows[:-1, j]).argmax())]
    gain = _difference(found, column, order[-1], order[-2])
    lost = _difference(found, column, best, order[-1])
    told[column] = {
      "gain": gain if sign > 0 else _negative(gain),
      "forgetting": lost if sign > 0 else _negative(lost),
      "best": best,
    }
  return told


def draw(
  path: pathlib.Path,
  found: Mapping[str, Any],
  order: Sequence[str],
  columns: Sequence[str],
) -> None:
  """Draws the matrix as a picture, its numbers written in.

  Colour compares within a column, dark is best: columns have other units.
  """
  from matplotlib import figure  # only whoever draws pays for it

  rows = matrix(found, order, columns)
  sign = np.array([-1 if _is_loss(c) else 1 for c in columns])
  good = rows * sign[None, :]
  spread = np.ptp(good, axis=0, keepdims=True)
  shade = (good - good.min(0, keepdims=True)) / np.where(spread > 0, spread, 1)
  size = (2.2 + 1.9 * len(columns), 1.1 + 0.55 * len(order))
  drawn = figure.Figure(size, layout="constrained", dpi=150)
  axes = drawn.subplots()
  axes.imshow(shade, cmap="Blues", vmin=-0.2, vmax=2.2, aspect="auto")
  axes.set_yticks(range(len(order)), [summary.label(s) for s in order])
  arrow = lambda column: "less" if _is_loss(column) else "more"
  heads = [f"{c}\n({arrow(c)} is better)" for c in columns]
  axes.set_xticks(range(len(columns)), heads)
  axes.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
  axes.spines[:].set_visible(False)
  for i, student in enumerate(order):
    for j, column in enumerate(columns):
      words = _words(_entry(found, column, student))
      axes.text(j, i, words, ha="center", va="center", fontsize=8)
  drawn.savefig(path)


def _words(value: Any) -> str:
  """A mean and, where there is one, its interval below."""
  ends = summary.interval(value)
  below = "" if ends is None else f"\n[{ends[0]:.3f}, {ends[1]:.3f}]"
  return f"{summary.mean(value):.3f}{below}"


def _is_loss(column: str) -> bool:
  return column.rpartition("/")[2] in LOSSES


def _entry(found: Mapping[str, Any], column: str, student: str) -> Any:
  name = cell(column, student)
  if name not in found:
    raise ValueError(
      f"forgetting: the summary has no {name!r}: score this student on that "
      "suite, too"
    )
  value = found[name]
  if not math.isfinite(summary.mean(value)):
    raise ValueError(f"forgetting: {name!r} is {summary.mean(value)}")
  return value


def _difference(
  found: Mapping[str, Any], column: str, left: str, right: str
) -> Interval:
  """The paired left - right of the summary."""
  for a, b, turned in ((left, right, False), (right, left, True)):
    name = cell(column, f"{a}{summary.MINUS}{b}")
    if name in found:
      return _negative(found[name]) if turned else found[name]
  name = cell(column, f"{left}{summary.MINUS}{right}")
  raise ValueError(
    f"forgetting: the summary has no {name!r}: give that stage the pair "
    f"({left}, {right})"
  )


def _negative(value: Interval) -> Interval:
  return Interval(
    mean=-value["mean"], low=-value["high"], high=-value["low"], n=value["n"]
  )
