import json

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
]
USER = {"role": "user", "content": "u"}


def write(path, *lines):
  rows = [r if isinstance(r, str) else json.dumps(r) for r in lines]
  path.write_text("\n".join(rows) + "\n")
  return path


def test_reads_both_forms_and_passes_over_empty_lines(tmp_path):
  path = write(tmp_path / "own.jsonl", GOOD[0], "", GOOD[1])
  assert jsonl.read(path) == GOOD
  assert [p for p, _ in jsonl.lines(path)] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
  ("bad", "said"),
  [
    ("{not json", "not a line of JSON"),
    ("[1]", "object is wanted"),
    ({"text": "x"}, r"it has \['text'\]"),
    ({"prompt": "x"}, "wants `messages`, or"),
    ({"prompt": "x", "completion": " "}, "`completion` must be text"),
    ({"prompt": 3, "completion": "y"}, "`prompt` must be text"),
    ({"prompt": "\ud800", "completion": "y"}, "not valid Unicode"),
    ({"messages": []}, "not empty"),
    ({"messages": "x"}, "must be a list"),
    ({"messages": ["x"]}, "must be an object"),
    ({"messages": [{"role": "bot", "content": "x"}]}, "role 'bot'"),
    ({"messages": [{"role": "user"}]}, "`content` must be text"),
    ({"messages": [USER]}, "no message is the assistant's"),
    ({"messages": [USER], "prompt": "x"}, "keep one"),
  ],
)
def test_errors_name_file_and_line(tmp_path, bad, said):
  path = write(tmp_path / "own.jsonl", GOOD[0], "", bad)
  with pytest.raises(ValueError, match=said) as error:
    jsonl.read(path)
  assert str(error.value).startswith(f"{path}:3: ")


def test_bytes_that_are_not_text(tmp_path):
  path = tmp_path / "own.jsonl"
  path.write_bytes(json.dumps(GOOD[0]).encode() + b'\n{"prompt": "\xff"}\n')
  with pytest.raises(ValueError, match=r"own\.jsonl:2: not a line of JSON"):
    jsonl.read(path)


def test_missing_and_empty_files(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such file"):
    jsonl.read(tmp_path / "none.jsonl")
  with pytest.raises(ValueError, match="holds no records"):
    jsonl.read(write(tmp_path / "empty.jsonl", ""))
