"""Scales, ticks and frames: what every plot of the report is drawn on."""

import dataclasses
import math

from research.evaluation.markup import Markup, join, tag, void


@dataclasses.dataclass(frozen=True)
class Frame:
  """A plot's inner rectangle, in pixels, and the data it spans.

  With `log` the horizontal axis is logarithmic.
  """

  left: float
  top: float
  width: float
  height: float
  xs: tuple[float, float]
  ys: tuple[float, float]
  log: bool = False

  def x(self, value: float) -> float:
    """The pixel of a horizontal value."""
    low, high = map(self._warp, self.xs)
    return self.left + self.width * (self._warp(value) - low) / (high - low)

  def y(self, value: float) -> float:
    """The pixel of a vertical value; larger is higher."""
    low, high = self.ys
    return self.top + self.height * (high - value) / (high - low)

  def _warp(self, value: float) -> float:
    return math.log(value) if self.log else value


def widen(low: float, high: float, *, share: float) -> tuple[float, float]:
  """A range with `share` of itself added on both sides, never empty."""
  pad = (high - low) * share or abs(high) * 0.1 or 1.0
  return low - pad, high + pad


def ticks(low: float, high: float, *, count: int) -> list[float]:
  """About `count` round numbers (1, 2, 2.5 or 5 times a power) inside."""
  raw = (high - low) / count
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [round(at * step, 12) for at in range(first, last + 1)]


def doublings(low: float, high: float) -> list[float]:
  """Ticks for a logarithmic axis: 1, 2 and 5 times powers of ten inside."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  marks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
  return [mark for mark in marks if low <= mark <= high]


def short(value: float) -> str:
  """A tick's label: 12k, 0.25, 3e−5."""
  if value and abs(value) < 1e-3:
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}".replace("-", "−")
  for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
    if abs(value) >= size:
      scale = 1e3 if unit == "k" else size
      return f"{value / scale:g}{unit}".replace("-", "−")
  return f"{value:g}".replace("-", "−")


def grid(frame: Frame, xs: list[float], ys: list[float]) -> Markup:
  """Hair lines at `ys`, a base line, and the labels of both axes."""
  right, base = frame.left + frame.width, frame.top + frame.height
  lines = [
    void("line", x1=frame.left, x2=right, y1=frame.y(y), y2=frame.y(y))
    for y in ys
  ]
  down = [
    text(frame.left - 7, frame.y(y) + 3.5, short(y), anchor="end") for y in ys
  ]
  along = [text(frame.x(x), base + 16, short(x), anchor="middle") for x in xs]
  foot = void("line", x1=frame.left, x2=right, y1=base, y2=base, class_="base")
  return tag("g", *lines, foot, *down, *along, class_="grid")


def text(
  x: float, y: float, words: str, *, anchor: str, class_: str | None = None
) -> Markup:
  """Words at a point; `anchor` is start, middle or end."""
  return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def path(points: list[tuple[float, float]], *, class_: str) -> Markup:
  """A line through pixels."""
  d = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
  return void("path", d=d, class_=class_)


def svg(width: float, height: float, *children: str, **attrs: object) -> Markup:
  """A drawing that scales with its column."""
  box = f"0 0 {width:g} {height:g}"
  return tag("svg", join(*children), viewBox=box, role="img", **attrs)
