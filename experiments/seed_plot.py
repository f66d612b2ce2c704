"""Runs of one config beside one another: a picture of their figures."""

import pathlib
import statistics
from typing import Any

import matplotlib.figure

from experiments import seed_table

COLOURS = ("#0b6e99", "#d9730d", "#6940a5", "#0f7b6c", "#ad1a72")


def _own(value: Any) -> tuple[float, float]:
  """Returns a run's own interval over problems; a point where it has none."""
  if isinstance(value, dict):
    return value["low"], value["high"]
  return value, value


def save(
  summaries: list[dict[str, Any]],
  seeds: list[str],
  title: str,
  out: pathlib.Path,
) -> None:
  """Writes `out`: a row a figure, a dot and its interval a seed.

  The bar behind them is the mean over seeds and its 95 % interval.
  """
  names = list(summaries[0])
  figure = matplotlib.figure.Figure(
    figsize=(8, 0.9 + 0.42 * len(names)), layout="constrained", dpi=120
  )
  axes = figure.subplots()
  for y, name in enumerate(names):
    values = [summary[name] for summary in summaries]
    found = seed_table.means(values)
    low, high = seed_table.interval(found)
    axes.barh(y, high - low, left=low, height=0.72, color="#e6e8eb", zorder=1)
    axes.plot(
      [statistics.mean(found)] * 2, [y - 0.36, y + 0.36], color="#37352f"
    )
    for at, value in enumerate(values):
      place = y + 0.2 * (at - (len(values) - 1) / 2)
      colour = COLOURS[at % len(COLOURS)]
      axes.plot(_own(value), [place] * 2, color=colour, lw=1.5, zorder=3)
      axes.plot(found[at], place, "o", color=colour, ms=4, zorder=4)
  for at, seed in enumerate(seeds):
    axes.plot(
      [], [], "o-", color=COLOURS[at % len(COLOURS)], label=f"seed {seed}"
    )
  _dress(axes, names, title)
  figure.savefig(out)


def _dress(axes: Any, names: list[str], title: str) -> None:
  axes.set_yticks(range(len(names)), names)
  axes.invert_yaxis()
  axes.grid(axis="x", color="#dddddd", lw=0.6)
  axes.set_axisbelow(True)
  for side in ("top", "right", "left"):
    axes.spines[side].set_visible(False)
  axes.tick_params(length=0)
  axes.set_title(title, loc="left", fontsize=11)
  axes.legend(frameon=False, fontsize=8, loc="best")
