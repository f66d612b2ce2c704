"""Training curves as inline SVG: what was logged, and its running mean."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from research.evaluation import axes
from research.evaluation.axes import Frame
from research.evaluation.markup import Markup, tag, void

BINS = 360  # a curve is no wider than this many pixels
FIRST = ("loss", "reward", "entropy", "length", "accuracy", "truncated", "kl")
SHOWN = 6
CLOCKS = frozenset({"step", "time", "seconds", "timestamp"})


def names(metrics: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
  """The numeric metrics of a stage: those to look at first, and the others.

  The first are at least SHOWN, where there are so many.
  """
  found = dict.fromkeys(
    key
    for record in metrics
    for key, value in record.items()
    if key not in CLOCKS and _number(value)
  )
  ranked = sorted(found, key=lambda name: (_rank(name), name))
  chief = sum(_rank(name) < len(FIRST) for name in ranked)
  shown = max(SHOWN, chief)
  return ranked[:shown], ranked[shown:]


def curve(metrics: Sequence[dict[str, Any]], name: str) -> Markup:
  """One metric against the step, as a figure.

  Thin is what was logged (beyond `BINS` points: the range within a bin), thick
  is its running mean. Values that are not finite are left out and counted.
  """
  steps, values, dropped = _finite(metrics, name)
  heading = tag("span", name.replace("_", " "), class_="name")
  if not len(steps):
    note = tag("p", f"no finite value in {dropped} logged", class_="note")
    return tag("figure", tag("figcaption", heading), note, class_="curve")
  steps, means, lows, highs = _binned(steps, values)
  frame = _frame(steps, lows, highs)
  last = tag("span", axes.short(float(f"{values[-1]:.4g}")), class_="last")
  warning = f"{dropped} not finite" if dropped else ""
  caption = tag(
    "figcaption", heading, tag("span", warning, class_="warning"), last
  )
  drawing = axes.svg(
    360,
    170,
    _grid(frame),
    *_lines(frame, steps, means, lows, highs),
    data_frame=json.dumps([frame.left, frame.top, frame.width, frame.height]),
    data_steps=json.dumps(steps.tolist()),
    data_values=json.dumps([_round(v) for v in means]),
    data_xs=json.dumps(frame.xs),
    data_ys=json.dumps(frame.ys),
    aria_label=f"{name} by step",
  )
  return tag("figure", caption, drawing, class_="curve")


def smooth(values: np.ndarray, window: int) -> np.ndarray:
  """The centred running mean; at the ends, over what the window still holds."""
  total = np.concatenate([[0.0], np.cumsum(values)])
  at = np.arange(len(values))
  first = np.maximum(at - window // 2, 0)
  past = np.minimum(at + window // 2 + 1, len(values))
  return (total[past] - total[first]) / (past - first)


def _number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(name: str) -> int:
  words = re.split(r"[/_.\s]+", name.lower())
  hits = [
    at for at, key in enumerate(FIRST) if any(w.startswith(key) for w in words)
  ]
  return min(hits, default=len(FIRST))


def _finite(
  metrics: Sequence[dict[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray, int]:
  pairs = [
    (record["step"], float(record[name]))
    for record in metrics
    if name in record and _number(record[name])
  ]
  kept = [(step, value) for step, value in pairs if math.isfinite(value)]
  table = np.array(kept, dtype=np.float64).reshape(-1, 2)
  return table[:, 0], table[:, 1], len(pairs) - len(kept)


def _binned(
  steps: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Steps, means, lowest and highest values of at most BINS bins."""
  if len(values) <= BINS:
    return steps, values, values, values
  starts = np.linspace(0, len(values), BINS, endpoint=False).astype(int)
  sizes = np.diff([*starts, len(values)])
  means = np.add.reduceat(values, starts) / sizes
  lows = np.minimum.reduceat(values, starts)
  return steps[starts], means, lows, np.maximum.reduceat(values, starts)


def _frame(steps: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> Frame:
  ends = float(steps[0]), float(steps[-1])
  xs = ends if ends[0] < ends[1] else axes.widen(*ends, share=0)
  ys = axes.widen(float(lows.min()), float(highs.max()), share=0.06)
  return Frame(44, 8, 304, 134, xs, ys)


def _grid(frame: Frame) -> Markup:
  across = axes.ticks(*frame.xs, count=4)
  return axes.grid(frame, across, axes.ticks(*frame.ys, count=4))


def _lines(
  frame: Frame,
  steps: np.ndarray,
  means: np.ndarray,
  lows: np.ndarray,
  highs: np.ndarray,
) -> list[Markup]:
  trace = lambda ys: [
    (frame.x(step), frame.y(y)) for step, y in zip(steps, ys, strict=True)
  ]
  if len(steps) == 1:
    [(x, y)] = trace(means)
    return [void("circle", cx=x, cy=y, r=3, class_="dot")]
  if np.array_equal(lows, highs):
    raw = axes.path(trace(means), class_="raw")
  else:
    raw = axes.path(trace(highs) + trace(lows)[::-1], class_="range")
  window = max(1, len(means) // 20)
  return [raw, axes.path(trace(smooth(means, window)), class_="mean")]


def _round(value: float) -> float:
  return float(f"{value:.5g}")
