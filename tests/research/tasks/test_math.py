"""MATH's answers are formulas, equal in meaning and not in letters."""

import json

import pytest

from research.tasks import math
from research.types import Problem

HALF = Problem("?", r"\frac{1}{2}", {})


@pytest.mark.parametrize(
  "text, strict, lenient",
  [
    (r"So \boxed{\frac12}.", "correct", "correct"),
    (r"\boxed{0.5}", "correct", "correct"),
    (r"\boxed{2} or rather \boxed{1/2}", "correct", "correct"),
    (r"\boxed{1/2} or rather \boxed{2}", "wrong", "wrong"),
    ("It is $1/2$.", "unparsed", "correct"),
    ("", "unparsed", "unparsed"),
  ],
)
def test_grading(text, strict, lenient):
  assert math.reward(HALF, text).kind == strict
  assert math.lenient(HALF, text).kind == lenient


def test_a_split_leaves_out_what_it_must(tmp_path):
  folder = tmp_path / "math"
  folder.mkdir()
  row = {"problem": "a  b", "answer": "1", "level": "Level 2", "subject": "A"}
  others = [
    {**row, "problem": "a b", "level": "Level 5"},  # of test, laid out anew
    {**row, "problem": "c", "answer": ""},
    {**row, "problem": "d", "level": "Level ?"},
    {**row, "problem": "e", "level": "Level 4"},
    {**row, "problem": "f"},
    {**row, "problem": " f ", "answer": "1.0"},  # the same once more
  ]
  lines = lambda rows: "".join(json.dumps(r) + "\n" for r in rows)
  (folder / "train.jsonl").write_text(lines(others))
  (folder / "math500.jsonl").write_text(lines([row]))
  args = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
  found = [p.prompt for p in math.problems("train", 0, **args)]
  assert sorted(found) == ["e", "f"]
  hard = [p.prompt for p in math.problems("train", 0, levels=(3, 5), **args)]
  assert hard == ["e"]
  (held,) = math.problems("test", 0, **args)
  assert held.meta["difficulty"] == 2
  with pytest.raises(ValueError, match="no solution"):
    math.trace(held, 0)
