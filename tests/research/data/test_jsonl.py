import gzip
import json
import tracemalloc

import pytest

from research.data import jsonl

GOOD = [
  {"prompt": "1+1", "completion": "2", "source": "mine"},
  {
    "messages": [
      {"role": "system", "content": "s"},
      {"role": "user", "content": "u"},
      {"role": "assistant", "content": "a"},
    ]
  },
  {"text": "A document.", "url": "x"},
]
USER = {"role": "user", "content": "u"}


def write(path, *lines):
  rows = [r if isinstance(r, str) else json.dumps(r) for r in lines]
  path.write_text("\n".join(rows) + "\n")
  return path


def test_reads_all_forms_and_passes_over_empty_lines(tmp_path):
  path = write(tmp_path / "own.jsonl", GOOD[0], "", *GOOD[1:])
  assert jsonl.read(path) == GOOD
  places = [p for p, _ in jsonl.lines(path)]
  assert places == [f"{path}:{n}" for n in (1, 3, 4)]


BAD = [
  ("{not json", "not a line of JSON (Expecting"),
  ("[" * 100_000, "not a line of JSON"),
  ("[1]", "a JSON object is wanted (not [1])"),
  ('{"text": "x", "text": "y"}', "a field twice ('text')"),
  ({"txt": "x"}, "(it has ['txt'])"),
  ({"prompt": "x"}, "wants `messages`, or"),
  ({"prompt": "x", "completion": " "}, "`completion` must be text"),
  ({"prompt": 3, "completion": "y"}, "`prompt` must be text"),
  ({"prompt": "\ud800", "completion": "y"}, "not valid Unicode"),
  ({"messages": []}, "not empty"),
  ({"messages": "x"}, "must be a list"),
  ({"messages": ["x"]}, "must be an object"),
  ({"messages": [{"role": "bot", "content": "x"}]}, "(it is 'bot')"),
  ({"messages": [{"role": "user"}]}, "`content` must be text"),
  ({"messages": [USER]}, "no message is the assistant's"),
  ({"messages": [USER], "prompt": "x"}, "`messages` and `prompt`; keep one"),
  ({"text": "x", "completion": "y"}, "`prompt` and `text`; keep one"),
  ({"text": " \n"}, "`text` must be text that is not empty"),
  ({"text": ["x"]}, "`text` must be text that is not empty"),
]


@pytest.mark.parametrize(("bad", "said"), BAD)
def test_errors_name_file_and_line(tmp_path, bad, said):
  path = write(tmp_path / "own.jsonl", GOOD[0], "", bad, GOOD[1])
  with pytest.raises(ValueError) as error:
    jsonl.read(path)
  assert str(error.value).startswith(f"{path}:3: ") and said in str(error.value)
  records, faults = jsonl.sift(path)
  assert [[*r] for r in records] == [["prompt", "completion"], ["messages"]]
  del faults["unknown field 'source'"]
  ((why, numbers),) = faults.items()
  assert numbers == [3] and why in str(error.value)


def test_ids_come_once(tmp_path):
  rows = [{"text": "x", "id": x} for x in (1, "1", None, None, [2], 1, [2])]
  path = write(tmp_path / "own.jsonl", *rows)
  with pytest.raises(ValueError, match=r":6: duplicate id \(1 is that of 1\)"):
    jsonl.read(path)
  records, faults = jsonl.sift(path)
  assert [r["id"] for r in records] == [1, "1", None, None, [2]]
  assert faults == {"duplicate id": [6, 7]}


def test_sifted_records_have_known_fields_alone(tmp_path):
  rows = [GOOD[0], GOOD[2], GOOD[0] | {"id": 7, "key": "k", "sorce": 1}]
  records, faults = jsonl.sift(write(tmp_path / "own.jsonl", *rows))
  assert records[2] == {
    "prompt": "1+1",
    "completion": "2",
    "id": 7,
    "key": "k",
  }
  assert faults == {
    "unknown field 'source'": [1, 3],
    "unknown field 'url'": [2],
    "unknown field 'sorce'": [3],
  }


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz"])
def test_a_line_of_100_mb_is_never_held(tmp_path, kind):
  path = tmp_path / f"own{kind}"
  opened = gzip.open if kind.endswith(".gz") else open
  with opened(path, "wb") as file:
    file.write(b'{"text": "')
    for _ in range(100):
      file.write(b"x" * 1_000_000)
    file.write(b'"}\n' + json.dumps(GOOD[2]).encode())  # and no last newline
  tracemalloc.start()
  records, faults = jsonl.sift(path)
  with pytest.raises(ValueError, match=r":1: a line too long \(over 16,000,00"):
    jsonl.read(path)
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert records == [{"text": "A document."}]
  assert faults == {"a line too long": [1], "unknown field 'url'": [2]}
  assert most < 50_000_000


def test_gzip_that_breaks_off(tmp_path):
  path = tmp_path / "own.jsonl.gz"
  whole = gzip.compress(json.dumps(GOOD[0]).encode() * 99)
  for bad in (whole[:-9], b"no gzip", whole[:30] + b"x" * 30):
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=r"own\.jsonl\.gz: not a whole gzip"):
      jsonl.read(path)


def test_bytes_that_are_not_text(tmp_path):
  path = tmp_path / "own.jsonl"
  path.write_bytes(json.dumps(GOOD[0]).encode() + b'\n{"prompt": "\xff"}\n')
  with pytest.raises(ValueError, match=r"own\.jsonl:2: not UTF-8"):
    jsonl.read(path)
  assert jsonl.sift(path).faults["not UTF-8"] == [2]


def test_missing_and_empty_files(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such file"):
    jsonl.read(tmp_path / "none.jsonl")
  with pytest.raises(ValueError, match="holds no records"):
    jsonl.read(write(tmp_path / "empty.jsonl", ""))
