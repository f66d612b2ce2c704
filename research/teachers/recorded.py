"""Traces that someone recorded before: a JSONL file, read with suspicion.

    {"prompt": "3a+4b*9", "completion": "a3+4=7b7*9=3\n#### 3"}

A line that cannot be used is passed over, and told by its number and reason.
"""

import collections
import pathlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from research.data import jsonl
from research.types import Problem, Trace

OPTIONAL = ("id", "key", "finish", "tokens")


class Record(NamedTuple):
  """What a line holds; its problem is found by key, else by prompt."""

  line: int
  addresses: list[tuple[str, str]]
  text: str
  finish: Literal["stop", "length"]
  tokens: int | None


Faults = dict[str, list[int]]  # line numbers by reason


def write(
  task: Any,
  problems: Iterable[Problem],
  n: int,
  seed: int,
  *,
  path: str,
  prompt: str = "prompt",
  completion: str = "completion",
  longest: int = jsonl.LONGEST,
) -> Generator[Trace, None, dict[str, Any]]:
  """Yields `n` traces a problem, in the order of the file at `path`.

  Where it has fewer, those that lack are errors. `prompt` and `completion` are
  what the file calls them; lines may have `id`, `key`, `finish` and `tokens`.
  Returns how many lines there were and, by reason, which were not used, or not
  in full. Raises FileNotFoundError without a file.
  """
  del task, seed
  records, faults = read(path, prompt, completion, longest)
  waiting = _by_address(records)
  used: set[int] = set()
  for problem in problems:
    places = ("key", problem.meta["key"]), ("prompt", problem.prompt.strip())
    fitting = (r for place in places for r in waiting.get(place, ()))
    for sample in range(n):
      record = next((r for r in fitting if r.line not in used), None)
      yield _trace(problem, sample, record)
      used |= {record.line} if record else set()
  if left := [r.line for r in records if r.line not in used]:
    faults["not asked for"] = left
  told = {
    why: {"count": len(numbers), "lines": spans(numbers)}
    for why, numbers in faults.items()
  }
  return {"usable": len(records), "faults": told}


def _by_address(
  records: list[Record],
) -> Mapping[tuple[str, str], list[Record]]:
  """Records by each name that their problem may have."""
  found = collections.defaultdict(list)
  for record in records:
    for address in record.addresses:
      found[address].append(record)
  return found


def _trace(problem: Problem, sample: int, record: Record | None) -> Trace:
  """A problem's record as its trace."""
  if record is None:
    error = "no line of the file is left for this problem"
    return Trace(problem, None, sample, "error", error=error)
  return Trace(problem, record.text, sample, record.finish, record.tokens)


def read(
  path: str | pathlib.Path, prompt: str, completion: str, longest: int
) -> tuple[list[Record], Faults]:
  """The usable records of a file, and its faults.

  An unknown field is a fault that leaves its record usable, without the field.
  """
  records, faults = [], collections.defaultdict(list)
  ids: set[Any] = set()
  for number, raw in jsonl.scan(path, longest):
    if isinstance(raw, jsonl.Fault):
      faults[raw.name].append(number)
    elif why := _why_not(raw, prompt, completion, ids):
      faults[why].append(number)
    else:
      ids |= {raw["id"]} if "id" in raw else set()
      records.append(_record(raw, number, prompt, completion))
      for name in sorted(set(raw) - {prompt, completion, *OPTIONAL}):
        faults[f"unknown field {name[:40]!r}"].append(number)
  return records, dict(faults)


def _why_not(
  raw: dict[str, Any], prompt: str, completion: str, ids: set[Any]
) -> str | None:
  """Why an object is no record; `ids` are those that are taken."""
  for name in ("key", prompt, completion):
    if name in raw and jsonl.text_fault(raw, name):
      return f"{name!r} is not text"
  if completion not in raw or not {"key", prompt} & set(raw):
    return "no key and no prompt, or no completion"
  if raw.get("finish", "stop") not in ("stop", "length"):
    return "'finish' is neither stop nor length"
  tokens = raw.get("tokens")
  if tokens is not None and (type(tokens) is not int or tokens < 0):
    return "'tokens' is no count"
  if not isinstance(raw.get("id", ""), str | int):
    return "'id' is neither text nor a number"
  return "duplicate id" if raw.get("id") in ids else None


def _record(
  raw: dict[str, Any], number: int, prompt: str, completion: str
) -> Record:
  """An object that is a record, as one."""
  names = (("key", "key"), ("prompt", prompt))
  addresses = [(kind, raw[x].strip()) for kind, x in names if x in raw]
  finish, tokens = raw.get("finish", "stop"), raw.get("tokens")
  return Record(number, addresses, raw[completion], finish, tokens)


def spans(numbers: Iterable[int]) -> str:
  """Ascending numbers for reading: 1-3, 7."""
  runs: list[list[int]] = []
  for n in numbers:
    if runs and n == runs[-1][-1] + 1:
      runs[-1][1:] = [n]
    else:
      runs.append([n])
  return ", ".join("-".join(map(str, run)) for run in runs)
