"""Runs of one config beside one another: a table, and the notes below it."""

import math
import pathlib
import statistics
from typing import Any

# Student's t, 97.5 %, by degrees of freedom: for two seeds to ten.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}
T |= {8: 2.306, 9: 2.262}


def _cell(value: Any) -> str:
  if isinstance(value, dict):
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
  return f"{value:g}"


def means(values: list[Any]) -> list[float]:
  """Returns the figure of each run, without its interval."""
  return [float(v["mean"]) if isinstance(v, dict) else v for v in values]


def interval(values: list[float]) -> tuple[float, float]:
  """Returns the 95 % interval of the mean over seeds, by Student's t.

  Two seeds at least; beyond ten that of ten, which is a little too wide.
  """
  n = len(values)
  half = T[min(n - 1, 9)] * statistics.stdev(values) / math.sqrt(n)
  return statistics.mean(values) - half, statistics.mean(values) + half


def _over_seeds(values: list[Any]) -> str:
  found = means(values)
  low, high = interval(found)
  return f"{statistics.mean(found):.3f} [{low:.3f}, {high:.3f}]"


def table(summaries: list[dict[str, Any]], seeds: list[str]) -> str:
  """Returns a Markdown table: a line a figure, a column a seed.

  The brackets of a seed are that run's own 95 % interval over problems; those
  of the last column are over seeds. A figure that some run does not have, such
  as a count of what never came, has no mean.
  """
  heads = ["figure", *(f"seed {s}" for s in seeds), "mean over seeds"]
  lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
  for name in dict.fromkeys(name for told in summaries for name in told):
    values = [told[name] for told in summaries if name in told]
    cells = [_cell(told[name]) if name in told else "" for told in summaries]
    whole = _over_seeds(values) if len(values) == len(summaries) else ""
    cells = [f"`{name}`", *cells, whole]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def with_notes(text: str, out: pathlib.Path) -> str:
  """Returns text and the sections that `out` has, from its first "## " on."""
  held = out.read_text() if out.exists() else ""
  start = held.find("\n## ")
  return text if start < 0 else text + held[start:]
