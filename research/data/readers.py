"""Published files as rows of text: one reader a set.

Each is `reader(path, split)`, an iterator of rows that all have the same
fields. Where a set has one file, its split is a property of the rows.
"""

import json
import pathlib
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from research import splits
from research.data import jsonl

Row = dict[str, str]
HELD_OUT = 8  # the bucket of ten that `splits.assign` keeps for tests
DECISIONS = ("yes", "no", "maybe")
BOOLEANS = ("Yes", "No")


def gsm8k(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`question`, and the worked `answer` that ends in `#### 24`."""
  del split  # the publisher's own: a file each
  for place, record in jsonl.lines(path):
    answer = jsonl.field(record, "answer", place)
    if "####" not in answer:
      raise ValueError(f"{place}: `answer` does not end in `#### number`")
    yield {
      "question": jsonl.field(record, "question", place),
      "answer": answer,
    }


def math(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`question`, `answer`, `level` 1 to 5, `subject`; `worked`, maybe "".

  A problem without an answer or a level, of which the publisher has a few, is
  left out.
  """
  del split  # a file each
  for place, record in jsonl.lines(path):
    level = re.fullmatch(r"(?:Level )?([1-5?])", str(record.get("level")))
    if level is None:
      raise ValueError(f"{place}: `level` must be 1 to 5, or `Level 1`")
    if record.get("answer") == "" or level[1] == "?":
      continue
    yield {
      "question": jsonl.field(record, "problem", place),
      "answer": jsonl.field(record, "answer", place),
      "level": level[1],
      "subject": jsonl.field(record, "subject", place),
      "worked": str(record.get("solution", "")),
    }


def svamp(path: pathlib.Path, split: str) -> Iterator[Row]:
  """GSM8K's form: the question joined to its story, `answer` as `#### 145`."""
  del split
  for place, record in jsonl.lines(path):
    number = record.get("Answer")
    if isinstance(number, bool) or not isinstance(number, int | float):
      raise ValueError(f"{place}: `Answer` must be a number")
    body = jsonl.field(record, "Body", place).rstrip()
    stop = "" if body.endswith((".", "?", "!")) else "."
    number = int(number) if number == int(number) else number
    yield {
      "question": f"{body}{stop} {jsonl.field(record, 'Question', place)}",
      "answer": f"#### {number}",
    }


def medquad(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`question` and `answer`, the web page `url` and the `source` that has it.

  One in 24 answers stands there more than once, a page answers many questions,
  and pages ask the same. So that the test asks of nothing that was read, rows
  that share a page, a question or an answer belong to one split: see `groups`.
  """
  names = ("question", "answer", "source", "url")
  rows = [
    {name: jsonl.field(record, name, place) for name in names}
    for place, record in jsonl.lines(path)
  ]
  plain = lambda row, name: (name, *re.findall(r"\w+", row[name].casefold()))
  shared = [
    (row["url"], plain(row, "question"), plain(row, "answer")) for row in rows
  ]
  for row, first in zip(rows, groups(shared), strict=True):
    if _held_out(rows[first]["question"]) == (split == "test"):
      yield row


def openstax(path: pathlib.Path, split: str) -> Iterator[Row]:
  """The `text` of a module of a book, its `title` and its `chapter`.

  The preface has no chapter.
  """
  for place, record in jsonl.lines(path):
    chapter = record.get("chapter")
    row = {
      "module": jsonl.field(record, "module", place),
      "chapter": jsonl.field(record, "chapter", place) if chapter else "",
      "title": jsonl.field(record, "title", place),
      "text": jsonl.field(record, "text", place),
    }
    if _held_out(row["module"]) == (split == "test"):
      yield row


def pubmedqa(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`question`, `abstract`, its conclusion `long_answer`, and yes/no/maybe.

  `key` is the article's number in PubMed. An abstract has its passages in
  lines, without the conclusion.
  """
  del split
  records = _json(path)
  if not isinstance(records, dict):
    raise ValueError(f"{path}: wants an object with an article's number a key")
  for key, record in records.items():
    place = f"{path}, article {key}"
    passages = record.get("CONTEXTS") if isinstance(record, dict) else None
    if not passages or not all(isinstance(x, str) for x in passages):
      raise ValueError(f"{place}: `CONTEXTS` must be a list of passages")
    if record.get("final_decision") not in DECISIONS:
      raise ValueError(f"{place}: `final_decision` is none of {DECISIONS}")
    yield {
      "key": key,
      "question": jsonl.field(record, "QUESTION", place),
      "abstract": "\n".join(passages),
      "long_answer": jsonl.field(record, "LONG_ANSWER", place),
      "answer": record["final_decision"],
    }


def strategy_qa(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`question`, `answer`, which is yes or no, and somebody's `rationale`."""
  del split
  records = _json(path)
  if not isinstance(records, list):
    raise ValueError(f"{path}: wants a list of questions")
  for number, record in enumerate(records):
    place = f"{path}, question {number}"
    if not isinstance(record, dict) or record.get("answer") not in BOOLEANS:
      raise ValueError(f"{place}: `answer` is none of {BOOLEANS}")
    yield {
      "question": jsonl.field(record, "question", place).strip(),
      "answer": record["answer"].lower(),
      "rationale": jsonl.field(record, "rationale", place).strip(),
    }


def humaneval(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`key`, a function's head `prompt`, its `solution` and its tests `test`.

  `entry` is the name of the function.
  """
  del split
  names = {
    "key": "task_id",
    "prompt": "prompt",
    "entry": "entry_point",
    "solution": "canonical_solution",
    "test": "test",
  }
  for place, record in jsonl.lines(path):
    field = lambda name: jsonl.field(record, name, place)
    yield {ours: field(name) for ours, name in names.items()}


def mbpp(path: pathlib.Path, split: str) -> Iterator[Row]:
  """`key`, what is asked in `text`, the `code` and its `tests`, one a line.

  The publisher's: 601 to 974 are for training, 11 to 600 to test and validate,
  1 to 10 are examples of a prompt, and in neither.
  """
  for place, record in jsonl.lines(path):
    number, tests = record.get("task_id"), record.get("test_list")
    if not isinstance(number, int) or not isinstance(tests, list):
      raise ValueError(f"{place}: wants a number `task_id`, a list `test_list`")
    if split == ("train" if number > 600 else "test" if number > 10 else ""):
      setup = record.get("test_setup_code") or ""
      yield {
        "key": f"MBPP/{number}",
        "text": jsonl.field(record, "text", place),
        "code": jsonl.field(record, "code", place).replace("\r\n", "\n"),
        "setup": setup.replace("\r\n", "\n"),
        "tests": "\n".join([*tests, *record.get("challenge_test_list", ())]),
      }


def _json(path: pathlib.Path) -> Any:
  """What a file of JSON says."""
  try:
    return json.loads(path.read_bytes())
  except ValueError as error:
    raise ValueError(f"{path}: not JSON ({error})") from error


def groups(shared: Sequence[Iterable[Hashable]]) -> list[int]:
  """The first member of each item's group.

  Items are of one group where a chain leads from one to the other, each link
  of which has something in common with the next.
  """
  leader = list(range(len(shared)))
  seen: dict[Hashable, int] = {}

  def first(i: int) -> int:
    while leader[i] != i:
      leader[i] = leader[leader[i]]
      i = leader[i]
    return i

  for i, things in enumerate(shared):
    for thing in things:
      one, other = sorted((first(seen.setdefault(thing, i)), first(i)))
      leader[other] = one
  return [first(i) for i in range(len(shared))]


def _held_out(name: str) -> bool:
  """Whether what goes by `name` is in the test split: a tenth of the names."""
  return splits.digest(name) % 10 == HELD_OUT
