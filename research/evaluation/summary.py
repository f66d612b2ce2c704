"""Reading a flat summary: rows of students and suites, differences, tables.

A name is `student/metric` or `suite/student/metric`; the suite without a name
is the held-out split of the training distribution. `a_minus_b` as a student
is a paired difference. A name without a slash is a fact about the run.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

Value = Any  # a number, or {mean, low, high, n}

HOME = "in distribution"
MINUS = "_minus_"
PLAIN = (
  "nats",
  "yield",
  "right",
  "sound",
  "correct",
  "mistakes",
  "entropy",
)  # worth a column without an "@"
ORDER = (
  r"pass@1",
  r"lenient_pass@1",
  r"maj@\d+",
  r"pass@\d+",
  r"extracted",
  r"lenient_extracted",
  r"truncated",
  r"tokens",
  r"excluded",
  r".*",
)


@dataclasses.dataclass(frozen=True)
class Row:
  """One student (or difference) on one suite, its metrics in reading order."""

  suite: str
  student: str
  metrics: dict[str, Value]

  @property
  def difference(self) -> bool:
    """Whether this is one student minus another."""
    return MINUS in self.student


def rows(summary: Mapping[str, Value]) -> list[Row]:
  """The summary's rows, in the order in which suites and students appear."""
  found: dict[tuple[str, str], dict[str, Value]] = {}
  for name, value in summary.items():
    if "/" in name:
      *suite, student, metric = name.split("/")
      found.setdefault(("/".join(suite) or HOME, student), {})[metric] = value
  ordered = sorted(found.items(), key=lambda item: item[0][0] != HOME)
  return [Row(*key, _sorted(metrics)) for key, metrics in ordered]


def facts(summary: Mapping[str, Value]) -> dict[str, Value]:
  """What the summary says about the run as a whole (names without a slash)."""
  return {name: v for name, v in summary.items() if "/" not in name}


def mean(value: Value) -> float:
  """A value's number, with or without an interval."""
  return value["mean"] if isinstance(value, Mapping) else value


def interval(value: Value) -> tuple[float, float] | None:
  """A value's 95 % interval, if it has one."""
  if not isinstance(value, Mapping):
    return None
  return value["low"], value["high"]


def metrics(table: Sequence[Row]) -> list[str]:
  """Every metric that some row has, in reading order."""
  return sorted({name for row in table for name in row.metrics}, key=_rank)


def chief(names: Sequence[str]) -> list[str]:
  """The metrics worth a column: of pass@k and maj@k the largest k alone."""
  sizes: dict[str, int] = {}
  for name in names:
    kind, _, k = name.rpartition("@")
    if kind in ("pass", "maj"):
      sizes[kind] = max(sizes.get(kind, 1), int(k))
  largest = {f"{kind}@{k}" for kind, k in sizes.items()} | {"pass@1"}
  counted = lambda name: name.rpartition("@")[0] in ("pass", "maj")
  return [name for name in names if not counted(name) or name in largest]


def number(value: float, *, signed: bool = False) -> str:
  """A number for reading: rates to three digits, large ones to fewer."""
  sign = "+" if signed else ""
  if isinstance(value, int) and not signed:
    return f"{value:,}"
  digits = 3 if abs(value) < 2 else 1 if abs(value) < 1000 else 0
  return f"{value:{sign}z,.{digits}f}".replace("-", "−")


def span(value: Value, *, signed: bool = False) -> str:
  """An interval for reading, `[0.93, 0.97]`; empty where there is none."""
  ends = interval(value)
  if ends is None:
    return ""
  return "[" + ", ".join(number(end, signed=signed) for end in ends) + "]"


def label(name: str) -> str:
  """A name as words: `answer_only` is answer-only, `a_minus_b` is a − b."""
  return " − ".join(p.replace("_", "-") for p in name.split(MINUS))


def words(name: str) -> str:
  """A metric's or a fact's name as words: `lenient_pass@1`, lenient pass@1."""
  return name.replace("_", " ")


def table(summary: Mapping[str, Value]) -> Table:
  """The chief rates and losses as a table for a terminal of 80 columns.

  One row a student and suite, each rate above its 95 % interval; lenient
  pass@1 without one, and the rest is left to the report.
  """
  lines = rows(summary)
  names = [n for n in chief(metrics(lines)) if "@" in n or n in PLAIN]
  drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
  drawn.add_column("student")
  for name in names:
    drawn.add_column(name.replace("_pass@1", ""), justify="right", no_wrap=True)
  for suite in dict.fromkeys(row.suite for row in lines):
    group = [row for row in lines if row.suite == suite]
    drawn.add_row(Text(suite, style="italic"), Text(_size(group), style="dim"))
    for row in group:
      cells = [_cell(row, name) for name in names]
      drawn.add_row(Text(label(row.student)), *cells)
    drawn.add_section()
  return drawn


def problems(row: Row) -> int | None:
  """How many problems stand behind a row, if any metric says so."""
  counts = [v["n"] for v in row.metrics.values() if isinstance(v, Mapping)]
  return max(counts) if counts else None


def _size(group: Sequence[Row]) -> str:
  counts = [count for row in group if (count := problems(row)) is not None]
  return f"n = {max(counts):,}" if counts else ""


def _cell(row: Row, name: str) -> Text:
  if name not in row.metrics:
    return Text()
  value, signed = row.metrics[name], row.difference
  bold = (number(mean(value), signed=signed), "bold")
  if name.startswith("lenient"):
    return Text.assemble(bold)
  return Text.assemble(bold, "\n", (span(value, signed=signed), "dim"))


def _sorted(named: Mapping[str, Value]) -> dict[str, Value]:
  return dict(sorted(named.items(), key=lambda item: _rank(item[0])))


def _rank(name: str) -> tuple[int, int, str]:
  place = next(at for at, p in enumerate(ORDER) if re.fullmatch(p, name))
  digits = re.search(r"\d+$", name)
  return place, int(digits.group()) if digits else 0, name
