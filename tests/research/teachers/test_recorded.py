"""A recorded file: what is in it comes out, what is wrong with it is told."""

import json
import tracemalloc

import pytest

from research.tasks import chain
from research.teachers import recorded
from research.types import Problem

ASKED = [Problem(f"p{i}", "1", {"key": f"k{i}"}) for i in range(3)]


def read(path, n=1, problems=ASKED, **args):
  """The traces and what the teacher returns."""
  written = recorded.write(chain, problems, n, 0, path=str(path), **args)
  traces = []
  while True:
    try:
      traces.append(next(written))
    except StopIteration as end:
      return traces, end.value


def lines(path, *rows):
  coded = (r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows)
  path.write_bytes(b"".join(row + b"\n" for row in coded))
  return path


def test_found_by_key_or_by_prompt_and_in_order(tmp_path):
  path = lines(
    tmp_path / "x.jsonl",
    {"key": "k2", "completion": "c"},
    {"prompt": " p0\n", "completion": "a", "tokens": 7, "finish": "length"},
    {"key": "k2", "prompt": "p2", "completion": "d"},
    {"prompt": "p2", "key": "someone's", "completion": "e"},
  )
  traces, said = read(path, n=2)
  assert [t.text for t in traces] == ["a", None, None, None, "c", "d"]
  assert [(t.problem, t.sample) for t in traces] == [
    (problem, sample) for problem in ASKED for sample in (0, 1)
  ]
  assert (traces[0].tokens, traces[0].finish) == (7, "length")
  assert "no line" in traces[1].error and traces[1].finish == "error"
  assert said["usable"] == 4
  assert said["faults"] == {"not asked for": {"count": 1, "lines": "4"}}
  assert [t.text for t in read(path, n=3)[0]][6:] == ["c", "d", "e"]


def test_a_problem_that_comes_again_has_the_next_lines(tmp_path):
  rows = [{"key": "k0", "completion": x} for x in "ab"]
  path = lines(tmp_path / "x.jsonl", *rows)
  traces, _ = read(path, problems=[ASKED[0]] * 3)
  assert [t.text for t in traces] == ["a", "b", None]


GOOD = {"prompt": "p0", "completion": "a"}
BROKEN = {
  "not a line of JSON": b'{"prompt": "p0", "comp',
  "a JSON object is wanted": b"[1, 2]",
  "not UTF-8": b'{"prompt": "p0", "completion": "\xff\xfe"}',
  "a line too long": json.dumps(GOOD | {"x": "y" * 999}).encode(),
  "a field twice": b'{"prompt": "p0", "completion": "a", "completion": "b"}',
  "'completion' is not text": {"prompt": "p0", "completion": None},
  "'prompt' is not text": {"prompt": "\ud800", "completion": "a"},
  "no key and no prompt, or no completion": {"completion": "a"},
  "'finish' is neither stop nor length": GOOD | {"finish": "error"},
  "'tokens' is no count": GOOD | {"tokens": -1},
  "'id' is neither text nor a number": GOOD | {"id": []},
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_line_is_told_and_passed_over(tmp_path, why):
  path = lines(tmp_path / "x.jsonl", b"", BROKEN[why], GOOD | {"id": 1})
  traces, said = read(path, problems=ASKED[:1], longest=500)
  assert [t.text for t in traces] == ["a"]
  assert said["faults"] == {why: {"count": 1, "lines": "2"}}


def test_deep_json_ends_nothing(tmp_path):
  path = lines(tmp_path / "x.jsonl", b"[" * 200_000, GOOD)
  traces, said = read(path, problems=ASKED[:1])
  assert (
    traces[0].text == "a"
    and said["faults"]["not a line of JSON"]["lines"] == "1"
  )


def test_duplicate_ids_and_unknown_fields(tmp_path):
  """A second record of one id is not used; an unknown field is, without it."""
  rows = [GOOD | {"id": i % 3, "model": "R1"} for i in range(5)]
  path = lines(tmp_path / "x.jsonl", *rows, GOOD | {"id": "0"})
  traces, said = read(path, n=6, problems=ASKED[:1])
  assert sum(t.text == "a" for t in traces) == said["usable"] == 4
  assert said["faults"] == {
    "duplicate id": {"count": 2, "lines": "4-5"},
    "unknown field 'model'": {"count": 3, "lines": "1-3"},
  }


def test_a_line_of_100_mb_is_never_held(tmp_path):
  path = tmp_path / "x.jsonl"
  with path.open("wb") as file:
    file.write(b'{"prompt": "p0", "completion": "')
    for _ in range(100):
      file.write(b"x" * 1_000_000)
    file.write(b'"}\n' + json.dumps(GOOD).encode())  # and no last newline
  tracemalloc.start()
  traces, said = read(path, problems=ASKED[:1])
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert traces[0].text == "a"
  assert said["faults"]["a line too long"]["lines"] == "1"
  assert most < 50_000_000


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("more, fits", [(-1, False), (0, True), (1, True)])
def test_the_longest_line(tmp_path, end, more, fits):
  row = json.dumps(GOOD).encode()
  path = tmp_path / "x.jsonl"
  path.write_bytes(row + end)
  traces, said = read(path, problems=ASKED[:1], longest=len(row) + more)
  assert (traces[0].text == "a") == fits == (not said["faults"])


def test_names_of_others(tmp_path):
  path = lines(tmp_path / "x.jsonl", {"question": "p1", "answer": "a"})
  traces, said = read(
    path, problems=ASKED[1:2], prompt="question", completion="answer"
  )
  assert traces[0].text == "a" and not said["faults"]


def test_no_file(tmp_path):
  with pytest.raises(FileNotFoundError):
    read(tmp_path / "x.jsonl")


def test_spans():
  assert recorded.spans([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
  assert recorded.spans([]) == ""
