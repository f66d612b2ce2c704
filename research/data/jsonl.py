"""A user's own data: one JSON object a line, errors named by file and line."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from research.data import text

Record = dict[str, Any]


def lines(path: str | pathlib.Path) -> Iterator[tuple[str, Record]]:
  """The objects of a JSONL file, each with its place, "file:line".

  Empty lines are passed over. Raises FileNotFoundError, and ValueError naming
  the place of a line that is not UTF-8, not JSON, or not an object.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such file; expected one JSON a line")
  with path.open("rb") as file:
    for number, line in enumerate(file, 1):
      if line.strip():
        place = f"{path}:{number}"
        yield place, _parse(line, place)


def _parse(line: bytes, place: str) -> Record:
  """One line as an object."""
  try:
    record = json.loads(line.decode("utf-8"))
  except ValueError as error:
    raise ValueError(f"{place}: not a line of JSON ({error})") from error
  if not isinstance(record, dict):
    raise ValueError(f"{place}: a JSON object is wanted, not {record!r:.40}")
  return record


def field(record: Record, name: str, place: str) -> str:
  """The text under `name`; ValueError naming the place where it is not one."""
  value = record.get(name)
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{place}: `{name}` must be text that is not empty")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    raise ValueError(f"{place}: `{name}` is not valid Unicode") from error
  return value


def read(path: str | pathlib.Path) -> list[Record]:
  """The records of a user's file: `messages`, or `prompt` and `completion`.

  Raises ValueError, naming file and line, for a record that cannot be trained
  on, and for a file without any.
  """
  records = []
  for place, record in lines(path):
    _check(record, place)
    records.append(record)
  if not records:
    raise ValueError(f"{path} holds no records")
  return records


def _check(record: Record, place: str) -> None:
  """Raises ValueError unless `record` can be rendered and learned from."""
  if "messages" not in record:
    if not {"prompt", "completion"} <= set(record):
      raise ValueError(
        f"{place}: wants `messages`, or `prompt` and `completion`; it has "
        f"{sorted(record)}"
      )
    field(record, "prompt", place)
    field(record, "completion", place)
    return
  if "prompt" in record or "completion" in record:
    raise ValueError(f"{place}: has both `messages` and a prompt; keep one")
  messages = record["messages"]
  if not isinstance(messages, list) or not messages:
    raise ValueError(f"{place}: `messages` must be a list that is not empty")
  for message in messages:
    _check_message(message, place)
  if all(message["role"] != "assistant" for message in messages):
    raise ValueError(f"{place}: no message is the assistant's")


def _check_message(message: Any, place: str) -> None:
  """Raises ValueError unless `message` has a known role and some content."""
  if not isinstance(message, dict):
    raise ValueError(f"{place}: a message must be an object with a role")
  if message.get("role") not in text.ROLES:
    raise ValueError(
      f"{place}: role {message.get('role')!r} is none of "
      f"{', '.join(text.ROLES)}"
    )
  field(message, "content", place)
