"""Runs of one config beside one another: a table, and the notes below it."""

import pathlib
import statistics
from typing import Any


def _cell(value: Any) -> str:
  if isinstance(value, dict):
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
  return f"{value:g}"


def _mean(values: list[Any]) -> str:
  means = [v["mean"] if isinstance(v, dict) else v for v in values]
  return f"{statistics.mean(means):.3f} ± {statistics.stdev(means):.3f}"


def table(summaries: list[dict[str, Any]], seeds: list[str]) -> str:
  """Returns a Markdown table: a line a figure, a column a seed.

  The last column is the mean over seeds and their standard deviation; the
  brackets are each run's own 95 % interval over problems.
  """
  heads = ["figure", *(f"seed {s}" for s in seeds), "mean ± sd of seeds"]
  lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
  for name in summaries[0]:
    values = [summary[name] for summary in summaries]
    cells = [f"`{name}`", *map(_cell, values), _mean(values)]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def with_notes(text: str, out: pathlib.Path) -> str:
  """Returns text and the sections that `out` has, from its first "## " on."""
  held = out.read_text() if out.exists() else ""
  start = held.find("\n## ")
  return text if start < 0 else text + held[start:]
