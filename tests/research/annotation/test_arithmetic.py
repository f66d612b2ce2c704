"""Marked calculations, by hand and in all of GSM8K's human solutions."""

import json

import pytest

from research.annotation import arithmetic, verify
from research.tasks import gsm8k
from research.teachers import recorded
from tests.research.annotation.making import about, reasons, texts, trace

MARKS = {
  "48/2=24": "right",
  "48/2=25": "wrong",
  "0.5*10=5.0": "right",
  ".5*10=5": "right",
  "10*1.=10": "right",
  "1/3=0.33": "wrong",
  "-14+-8+1=-21": "right",
  "+17.5-2=15.5": "right",
  "3*+6=18": "right",
  "-18/-2=9": "right",
  "2-(3-4)=3": "right",
  "2-(-3)=5": "right",
  "560//10=56": "right",
  "7//2=3": "wrong",
  "2560000000*1*.01=25600000": "right",
  "12345678901234567890/2=6172839450617283945": "right",
  "12345678901234567890/2=6172839450617283944": "wrong",
  "1/0=0": "unverifiable",
  "3/4=3/4": "unverifiable",
  "9**9=1": "unverifiable",
  "two=2": "unverifiable",
  "2=": "unverifiable",
  "2": "unverifiable",
  "": "unverifiable",
  "(" * 500 + "1=1": "unverifiable",
  "1" * 100_000 + "=1": "unverifiable",
}


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark[:40])
def test_a_mark(mark):
  assert arithmetic.check(mark) == MARKS[mark]


def test_wrong_ones_are_dropped_and_right_ones_go():
  said = ["2 + 2 = <<2+2=4>>4", "<<2+2=5>>5", "<<1=1>><<a=1>>", "none"]
  found = arithmetic.sift([trace(x) for x in said], about())
  assert texts(found) == ["2 + 2 = 4", "none"]
  assert reasons(found) == ["wrong", "unverifiable"]
  counts = {"right": 2, "wrong": 1, "unverifiable": 1}
  assert found.figures == {"marks": counts}
  whole = arithmetic.sift([trace(said[0])], about(), marks=True)
  assert texts(whole) == [said[0]]


@pytest.mark.parametrize("name, marks", [("train", 23716), ("test", 4282)])
def test_gsm8k_whole(data_dir, capsys, name, marks):
  """The human solutions through recorded, arithmetic and verify."""
  path = data_dir / "gsm8k" / f"{name}.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  problems = [gsm8k.problem_of(row) for row in rows]
  names = {"prompt": "question", "completion": "answer"}
  written = list(recorded.write(gsm8k, problems, 1, 0, path=str(path), **names))
  assert all(t.finish == "stop" for t in written)
  found = arithmetic.sift(written, about(gsm8k))
  final = verify.sift(found.kept, about(gsm8k))
  with capsys.disabled():
    print(f"\nGSM8K {name}: {len(rows)} solutions, {found.figures}", end="")
    print(f", {len(final.kept)} verified, {reasons(found)}", end="")
  counts = found.figures["marks"]
  odd = 1 if name == "test" else 0
  assert counts == {"right": marks - odd, "wrong": 0, "unverifiable": odd}
  assert [r.detail for _, r in found.dropped] == ["3/4=3/4"] * odd
  assert len(final.kept) == len(rows) - odd
  # As the task itself tells them, commas of answers aside.
  for t in final.kept[:200]:
    assert t.text.replace(",", "") == gsm8k.trace(t.problem, 0).replace(",", "")
