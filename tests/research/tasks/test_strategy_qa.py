import collections
import json

import pytest

from research.tasks import strategy_qa
from research.types import Problem

ROW = {
  "question": "Would a pear sink in water? ",
  "answer": "No",
  "rationale": "A pear is light. It is 0.59 g/cm^3.\n",
}


def written(root, rows):
  path = root / "cot_tasks" / "strategy_qa.json"
  path.parent.mkdir(exist_ok=True)
  text = rows if isinstance(rows, str) else json.dumps(rows)
  path.write_text(text)
  return {"data_dir": root, "cache_dir": root / "cache"}


def whole(**args):
  return [
    problem
    for split in strategy_qa.SPLITS
    for problem in strategy_qa.problems(split, 0, **args)
  ]


def test_what_is_asked_for_is_what_is_written(tmp_path):
  twice = [ROW, {**ROW, "question": ROW["question"].upper()}]
  args = written(tmp_path, twice)
  rationale = "A pear is light. It is 0.59 g/cm^3."
  (both,) = whole(**args)
  assert both.meta["difficulty"] == 2
  assert strategy_qa.trace(both, 0) == f"{rationale}\n#### no"
  (label,), (reason,) = (whole(ask=a, **args) for a in ("label", "rationale"))
  assert label.prompt == f"[label] {both.prompt}"
  assert reason.prompt == f"[rationale] {both.prompt}"
  assert strategy_qa.trace(label, 0) == "#### no"
  assert strategy_qa.trace(reason, 0) == rationale
  assert {p.meta["key"] for p in (both, label, reason)} == {both.meta["key"]}


@pytest.mark.parametrize(
  ("text", "strict", "lenient"),
  [
    ("#### no", "correct", "correct"),
    ("#### No", "correct", "correct"),
    ("#### yes", "wrong", "wrong"),
    ("#### no way", "wrong", "wrong"),
    ("Yes it would. No.", "unparsed", "correct"),
    ("Nobody knows", "unparsed", "unparsed"),
  ],
)
def test_grading(text, strict, lenient):
  problem = Problem("?", "no", {})
  assert strategy_qa.reward(problem, text).kind == strict
  assert strategy_qa.lenient(problem, text).kind == lenient


@pytest.mark.parametrize(
  ("rows", "told"),
  [
    ("{", "not JSON"),
    ({"data": []}, "a list of questions"),
    ([], "holds no"),
    ([ROW, "x"], "question 1: `answer` is none of"),
    ([ROW, {**ROW, "rationale": " "}], "question 1: .*rationale"),
    ([{**ROW, "answer": "maybe"}], "question 0: `answer` is none of"),
  ],
)
def test_a_file_that_is_not_as_published_is_named(tmp_path, rows, told):
  with pytest.raises(ValueError, match=told):
    strategy_qa.problems("train", 0, **written(tmp_path, rows))


def test_what_cannot_be_asked_is_an_error(tmp_path, monkeypatch):
  monkeypatch.delenv("PITH_DATA", raising=False)
  with pytest.raises(FileNotFoundError, match="reasoning-teacher"):
    strategy_qa.problems("train", 0)
  with pytest.raises(ValueError, match="ask='why'"):
    strategy_qa.problems("train", 0, ask="why", data_dir=tmp_path)  # type: ignore[arg-type]


def test_the_published_set_is_whole(data_dir, tmp_path):
  if not (data_dir / "cot_tasks" / "strategy_qa.json").exists():
    pytest.skip("cot_tasks/strategy_qa.json is not here")
  found = whole(data_dir=data_dir, cache_dir=tmp_path)
  # One question of 2,290 is there twice.
  assert len({p.meta["key"] for p in found}) == len(found) == 2289
  assert collections.Counter(p.answer for p in found)["yes"] == 1070
