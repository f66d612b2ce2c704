"""Samples inside a web page: columns, as JSON, gzipped, as base64.

Base64 holds no `<`, so nothing a model writes can close the script element
that carries it; the viewer unpacks it with the browser's DecompressionStream.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def pack(records: Sequence[Record]) -> str:
  """Records as one base64 string; a key that a record lacks becomes None.

  A column whose values repeat (prompts, verdicts) is a list of its distinct
  values and an index. A number that is not finite becomes None, for JSON has
  no word for it.
  """
  keys = dict.fromkeys(key for record in records for key in record)
  columns = {
    key: _column([_finite(record.get(key)) for record in records])
    for key in keys
  }
  body = {"size": len(records), "columns": columns}
  text = json.dumps(body, separators=(",", ":"), allow_nan=False)
  zipped = gzip.compress(text.encode("ascii"), compresslevel=6, mtime=0)
  return base64.b64encode(zipped).decode("ascii")


def unpack(text: str) -> list[dict[str, Any]]:
  """The records of `pack`, in order."""
  body = json.loads(gzip.decompress(base64.b64decode(text, validate=True)))
  columns = {key: _values(column) for key, column in body["columns"].items()}
  return [
    {key: values[row] for key, values in columns.items()}
    for row in range(body["size"])
  ]


def _column(values: list[Any]) -> Any:
  if not all(value is None or isinstance(value, str) for value in values):
    return values
  seen = {value: at for at, value in enumerate(dict.fromkeys(values))}
  if 2 * len(seen) > len(values):
    return values
  return {"values": list(seen), "index": [seen[value] for value in values]}


def _values(column: Any) -> list[Any]:
  if isinstance(column, list):
    return column
  return [column["values"][at] for at in column["index"]]


def _finite(value: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    return None
  if isinstance(value, dict):
    return {key: _finite(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [_finite(inner) for inner in value]
  return value
