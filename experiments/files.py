"""Files of a run's stages: where they lie, and lines of JSON in them."""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from research.training.metrics import replace_file

# A path that begins with the name of a stage; braces elsewhere are just text.
_STAGE = re.compile(r"\A{([\w.-]+)}(?=/|\Z)")


def located(path: str, inputs: Mapping[str, Any]) -> str:
  """Returns a path with `{stage}` at its head as that stage's folder.

  Raises:
    ValueError: it names a stage that has not run.
  """
  named = _STAGE.match(path)
  if named is None:
    return path
  if named[1] not in inputs:
    raise ValueError(
      f"the path {path!r} names no stage that has run: {list(inputs)}"
    )
  return inputs[named[1]]["folder"] + path[named.end() :]


def located_in(args: Any, inputs: Mapping[str, Any]) -> Any:
  """Returns arguments, however nested, with every path among them located."""
  found = lambda x: located(x, inputs) if isinstance(x, str) else x
  return jax.tree.map(found, args)


def write_lines(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes one JSON object a line; the file appears whole or not at all."""
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  replace_file(path, lines.encode())
