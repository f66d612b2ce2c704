"""A user's own data: one JSON object a line, errors named by file and line.

`read` stops at the first line that is wrong, for a typo in a training file must
not cost half of it in silence; `sift` passes over what is wrong, and tells it.
"""

import collections
import gzip
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from research.data import text

Record = dict[str, Any]
LONGEST = 16_000_000  # bytes of a line
FORMS = (("messages",), ("prompt", "completion"), ("text",))
OTHERS = ("id", "key")  # what a record may say beside its form


class Fault(NamedTuple):
  """Why a line is not used: a few words that are counted, and its own case."""

  name: str
  detail: str = ""

  def at(self, place: str) -> ValueError:
    """The error that tells it."""
    return ValueError(
      f"{place}: {self.name}{self.detail and f' ({self.detail})'}"
    )


class Sifted(NamedTuple):
  """The records of a file, and its faults: numbers of lines by reason."""

  records: list[Record]
  faults: dict[str, list[int]]


def scan(
  path: str | pathlib.Path, longest: int = LONGEST
) -> Iterator[tuple[int, Record | Fault]]:
  """The lines of a file by number, as objects or as what is wrong with them.

  Empty lines are passed over; a line of over `longest` bytes is never held. A
  name that ends in .gz is read through gzip. Raises FileNotFoundError, and
  ValueError for a broken gzip file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such file; expected one JSON a line")
  opened = gzip.open if path.suffix == ".gz" else open
  try:
    with opened(path, "rb") as file:
      for number, line in _lines(file, longest):
        if line is None:
          yield number, Fault("a line too long", f"over {longest:,} bytes")
        elif line.strip():
          yield number, _parse(line)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(f"{path}: not a whole gzip file ({error})") from error


def _lines(
  file: IO[bytes] | gzip.GzipFile, longest: int
) -> Iterator[tuple[int, bytes | None]]:
  """Numbers and lines; None for one that is too long."""
  for number in itertools.count(1):
    line = file.readline(longest + 1)
    if not line:
      return
    whole = len(line) <= longest or line.endswith(b"\n")
    rest = line
    while not whole and rest and not rest.endswith(b"\n"):
      rest = file.readline(1 << 20)
    yield number, line if whole else None


def _parse(line: bytes) -> Record | Fault:
  """One line as an object."""
  twice: list[str] = []

  def once(pairs: list[tuple[str, Any]]) -> Record:
    counts = collections.Counter(name for name, _ in pairs)
    twice.extend(name for name, count in counts.items() if count > 1)
    return dict(pairs)

  try:
    record = json.loads(line.decode("utf-8"), object_pairs_hook=once)
  except UnicodeDecodeError as error:
    return Fault("not UTF-8", str(error))
  except (ValueError, RecursionError) as error:
    return Fault("not a line of JSON", str(error))
  if twice:  # of two alike JSON keeps the last
    return Fault("a field twice", f"{twice[0]!r:.40}")
  if not isinstance(record, dict):
    return Fault("a JSON object is wanted", f"not {record!r:.40}")
  return record


def lines(
  path: str | pathlib.Path, longest: int = LONGEST
) -> Iterator[tuple[str, Record]]:
  """The objects of a JSONL file, each with its place, "file:line".

  Raises as `scan` does, and ValueError naming the place of the first line that
  is none.
  """
  for number, said in scan(path, longest):
    place = f"{path}:{number}"
    if isinstance(said, Fault):
      raise said.at(place)
    yield place, said


def field(record: Record, name: str, place: str) -> str:
  """The text under `name`; ValueError naming the place where it is not one."""
  if fault := text_fault(record, name):
    raise fault.at(place)
  return record[name]


def read(path: str | pathlib.Path) -> list[Record]:
  """The records of a user's file: conversations, pairs and documents.

  They have `messages`, or `prompt` and `completion`, or `text`; what else they
  have is not looked at, but an `id` must not come twice. Raises ValueError,
  naming file and line, for a record that cannot be trained on, and for a file
  without any.
  """
  records = []
  for number, said in _judged(path, LONGEST):
    if isinstance(said, Fault):
      raise said.at(f"{path}:{number}")
    records.append(said)
  if not records:
    raise ValueError(f"{path} holds no records")
  return records


def sift(path: str | pathlib.Path, longest: int = LONGEST) -> Sifted:
  """The records of a file that can be trained on, and what is wrong with it.

  Of records of one `id` the first is used. A field that is no form's is a fault
  that leaves its record usable, without it. Raises as `scan` does.
  """
  records, faults = [], collections.defaultdict(list)
  for number, said in _judged(path, longest):
    if isinstance(said, Fault):
      faults[said.name].append(number)
      continue
    form = next(form for form in FORMS if set(form) <= set(said))
    for name in sorted(set(said) - {*form, *OTHERS}):
      faults[f"unknown field {name[:40]!r}"].append(number)
    records.append({x: said[x] for x in said if x in (*form, *OTHERS)})
  return Sifted(records, dict(faults))


def _judged(
  path: str | pathlib.Path, longest: int
) -> Iterator[tuple[int, Record | Fault]]:
  """What `scan` yields, records that cannot be learned from as faults too."""
  lines: dict[str, int] = {}  # of ids, as JSON: 1 is not "1"
  for number, said in scan(path, longest):
    fault = said if isinstance(said, Fault) else _fault(said)
    if fault is None and isinstance(said, dict) and said.get("id") is not None:
      name = json.dumps(said["id"], sort_keys=True)
      if lines.setdefault(name, number) != number:
        fault = Fault("duplicate id", f"{name:.40} is that of {lines[name]}")
    yield number, fault or said


def _fault(record: Record) -> Fault | None:
  """Why `record` cannot be rendered and learned from."""
  forms = [form for form in FORMS if set(form) & set(record)]
  if len(forms) > 1:
    names = " and ".join(f"`{form[0]}`" for form in forms)
    return Fault(f"has both {names}; keep one")
  if not forms or not set(forms[0]) <= set(record):
    return Fault(
      "wants `messages`, or `prompt` and `completion`, or `text`",
      f"it has {sorted(record)!s:.200}",
    )
  if forms[0] == ("messages",):
    return _messages_fault(record["messages"])
  return next(filter(None, (text_fault(record, x) for x in forms[0])), None)


def text_fault(record: Record, name: str) -> Fault | None:
  """Why what stands under `name` is no text to learn from."""
  value = record.get(name)
  if not isinstance(value, str) or not value.strip():
    return Fault(f"`{name}` must be text that is not empty")
  try:
    value.encode("utf-8")
  except UnicodeEncodeError:  # half a pair, which JSON can spell
    return Fault(f"`{name}` is not valid Unicode")
  return None


def _messages_fault(messages: Any) -> Fault | None:
  """Why these are no messages with known roles and an assistant's answer."""
  if not isinstance(messages, list) or not messages:
    return Fault("`messages` must be a list that is not empty")
  for message in messages:
    if not isinstance(message, dict):
      return Fault("a message must be an object with a role")
    if message.get("role") not in text.ROLES:
      return Fault(
        f"a role is none of {', '.join(text.ROLES)}",
        f"it is {message.get('role')!r:.40}",
      )
    if fault := text_fault(message, "content"):
      return fault
  if all(message["role"] != "assistant" for message in messages):
    return Fault("no message is the assistant's")
  return None
