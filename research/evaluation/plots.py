"""Results as inline SVG: a forest of intervals, accuracy against tokens."""

import re
from collections.abc import Mapping, Sequence

from research.evaluation import axes, summary
from research.evaluation.axes import Frame
from research.evaluation.markup import Markup, join, tag, void
from research.evaluation.summary import Row

LINE = 22  # pixels between two intervals
RATE = re.compile(r"(lenient_)?pass@1|(pass|maj)@\d+")


def colours(rows: Sequence[Row]) -> dict[str, str]:
  """A colour class for every student, the same in all plots."""
  students = dict.fromkeys(row.student for row in rows if not row.difference)
  return {name: f"c{at % 6}" for at, name in enumerate(students)}


def forest(
  rows: Sequence[Row], names: Sequence[str], colour: Mapping[str, str]
) -> Markup:
  """Rates with their intervals on one axis from 0 to 1, grouped by metric."""
  groups = [(n, [row for row in rows if n in row.metrics]) for n in names]
  groups = [(name, group) for name, group in groups if group]
  tall = sum(LINE * len(group) + 30 for _, group in groups)
  frame = Frame(108, 4, 300, tall, (0.0, 1.0), (0.0, 1.0))
  parts, y = [], 4.0
  for name, group in groups:
    heading = axes.text(
      0, y + 16, summary.words(name), anchor="start", class_="heading"
    )
    marks = [
      _estimate(frame, y + 34 + LINE * at, row, name, colour[row.student])
      for at, row in enumerate(group)
    ]
    parts += [heading, *marks]
    y += LINE * len(group) + 30
  label = "rates with 95 % intervals"
  return axes.svg(
    560,
    tall + 30,
    _rules(frame, [0, 0.25, 0.5, 0.75, 1]),
    *parts,
    aria_label=label,
  )


def differences(rows: Sequence[Row], names: Sequence[str]) -> Markup:
  """Paired differences around zero; those that exclude it are drawn solid.

  Of the metrics `names`, which share a unit.
  """
  cells = [
    (row, name, row.metrics[name])
    for row in rows
    for name in names
    if name in row.metrics
  ]
  ends = [
    end
    for _, _, value in cells
    for end in summary.interval(value) or (summary.mean(value),)
  ]
  reach = max([0.02, *map(abs, ends)]) * 1.1
  tall = 34 * len(cells)
  frame = Frame(8, 4, 400, tall, (-reach, reach), (0.0, 1.0))
  parts = [
    _difference(frame, 26 + 34 * at, row, name)
    for at, (row, name, _) in enumerate(cells)
  ]
  zero = void(
    "line", x1=frame.x(0), x2=frame.x(0), y1=4, y2=tall + 4, class_="zero"
  )
  marks = axes.ticks(-reach, reach, count=6)
  label = "paired differences with 95 % intervals"
  return axes.svg(
    560, tall + 30, _rules(frame, marks), zero, *parts, aria_label=label
  )


def cost(rows: Sequence[Row], colour: Mapping[str, str]) -> Markup | None:
  """Accuracy against tokens a problem: pass@k solid, maj@k dashed.

  k samples cost k times the mean length. None where no student has `tokens`.
  """
  lines = [
    (row.student, kind, points)
    for row in rows
    for kind in ("pass", "maj")
    if (points := _spent(row, kind))
  ]
  spent = [x for _, _, points in lines for x, _, _ in points]
  if not spent:
    return None
  low, high = min(spent) / 1.3, max(spent) * 1.3
  frame = Frame(44, 10, 424, 240, (low, high), (0.0, 1.0), log=True)
  grid = axes.grid(frame, axes.doublings(low, high), [0, 0.2, 0.4, 0.6, 0.8, 1])
  words = "tokens a problem (log scale)"
  foot = axes.text(256, 288, words, anchor="middle", class_="axis")
  drawn = [
    _spending(frame, kind, points, colour[student], student)
    for student, kind, points in lines
  ]
  return axes.svg(480, 296, grid, foot, *drawn, aria_label="accuracy by tokens")


def bar(value: summary.Value, colour: str) -> Markup:
  """A rate and its interval on a thin track from 0 to 1."""
  frame = Frame(4, 0, 192, 12, (0.0, 1.0), (0.0, 1.0))
  track = void("line", x1=4, x2=196, y1=6, y2=6, class_="track")
  mark = _mark(frame, 6, value, colour)
  return axes.svg(200, 12, track, mark, class_="bar", aria_hidden="true")


def change(value: summary.Value, colour: str) -> Markup:
  """A difference and its interval on a thin track with zero in the middle."""
  ends = summary.interval(value) or (summary.mean(value),)
  reach = max([0.02, *map(abs, ends)]) * 1.2
  frame = Frame(4, 0, 192, 12, (-reach, reach), (0.0, 1.0))
  track = void("line", x1=4, x2=196, y1=6, y2=6, class_="track")
  zero = void("line", x1=100, x2=100, y1=0, y2=12, class_="zero")
  mark = _mark(frame, 6, value, colour)
  return axes.svg(200, 12, track, zero, mark, class_="bar", aria_hidden="true")


def _rules(frame: Frame, marks: Sequence[float]) -> Markup:
  base = frame.top + frame.height
  lines = [
    join(
      void("line", x1=frame.x(x), x2=frame.x(x), y1=frame.top, y2=base),
      axes.text(frame.x(x), base + 17, axes.short(x), anchor="middle"),
    )
    for x in marks
  ]
  return tag("g", *lines, class_="grid")


def _mark(frame: Frame, y: float, value: summary.Value, class_: str) -> Markup:
  dot = void("circle", cx=frame.x(summary.mean(value)), cy=y, r=3.6)
  ends = summary.interval(value)
  if ends is None:
    return tag("g", dot, class_=f"mark {class_}")
  low, high = map(frame.x, ends)
  line = void("line", x1=low, x2=high, y1=y, y2=y)
  return tag("g", line, dot, class_=f"mark {class_}")


def _estimate(
  frame: Frame, y: float, row: Row, name: str, colour: str
) -> Markup:
  value = row.metrics[name]
  number, span = summary.number(summary.mean(value)), summary.span(value)
  return tag(
    "g",
    tag("title", f"{row.student} {name}: {number} {span}"),
    axes.text(96, y + 4, summary.label(row.student), anchor="end"),
    _mark(frame, y, value, colour),
    axes.text(424, y + 4, number, anchor="start", class_="number"),
    axes.text(466, y + 4, span, anchor="start", class_="span"),
  )


def _difference(frame: Frame, y: float, row: Row, name: str) -> Markup:
  value = row.metrics[name]
  ends = summary.interval(value)
  clear = ends is not None and (ends[0] > 0 or ends[1] < 0)
  number = summary.number(summary.mean(value), signed=True)
  words = f"{row.suite}: {summary.label(row.student)}, {summary.words(name)}"
  return tag(
    "g",
    axes.text(8, y - 10, words, anchor="start", class_="over"),
    _mark(frame, y, value, "clear" if clear else "unclear"),
    axes.text(420, y + 4, number, anchor="start", class_="number"),
    axes.text(
      466,
      y + 4,
      summary.span(value, signed=True),
      anchor="start",
      class_="span",
    ),
  )


def _spent(row: Row, kind: str) -> list[tuple[float, float, int]]:
  """(tokens, accuracy, k) by k; maj@1 is pass@1."""
  if "tokens" not in row.metrics or row.difference:
    return []
  tokens = summary.mean(row.metrics["tokens"])
  found = {
    int(name.rpartition("@")[2]): summary.mean(value)
    for name, value in row.metrics.items()
    if re.fullmatch(rf"{kind}@\d+|pass@1", name)
  }
  if kind == "maj" and len(found) == 1:
    return []
  return [(tokens * k, found[k], k) for k in sorted(found) if tokens > 0]


def _spending(
  frame: Frame,
  kind: str,
  points: list[tuple[float, float, int]],
  colour: str,
  student: str,
) -> Markup:
  pixels = [(frame.x(x), frame.y(y)) for x, y, _ in points]
  dots = [
    tag(
      "circle",
      tag("title", f"{student} {kind}@{k}: {y:.3f} at {x:.0f} tokens"),
      cx=px,
      cy=py,
      r=4,
    )
    for (px, py), (x, y, k) in zip(pixels, points, strict=True)
  ]
  return tag(
    "g", axes.path(pixels, class_="line"), *dots, class_=f"{kind} {colour}"
  )
