"""Samples of problems, as stages left them in JSONL files."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import files
from research.annotation import gates
from research.data import jsonl
from research.types import Problem


def read(
  paths: Sequence[str], inputs: dict[str, Any], known: Mapping[str, Problem]
) -> tuple[dict[str, dict[str, bool]], int]:
  """Returns by key each text once, and how many samples cannot be read.

  A text is True where it is in the first of the files.

  Raises:
    ValueError: a sample is of another problem.
  """
  found, unread = collections.defaultdict(dict), 0
  for i, path in enumerate(paths):
    for place, record in jsonl.lines(files.located(path, inputs)):
      key, text = jsonl.field(record, "key", place), record.get("completion")
      if key not in known:
        raise ValueError(
          f"{place}: {key!r} is none of the {len(known)} problems: set "
          "problems and count as where they were sampled"
        )
      if not isinstance(text, str) or gates.fault(text):
        unread += 1
      else:
        found[key].setdefault(text, i == 0)
  return found, unread
