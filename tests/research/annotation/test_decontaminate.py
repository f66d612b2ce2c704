"""A planted question is found, and told by its set and place."""

import json

import pytest

from research.annotation import decontaminate, words
from tests.research.annotation.making import about, reasons, texts, trace

LONG = "Ann has three red apples, and Bob takes one: how many are left?"
SHORT = "How far is the blue moon?"  # six words
CLEAN = "Ann has three red apples and Bob has none of them at all today"
HELD_OUT = {"math/test": ["Nothing alike is said in this one at all.", LONG]}
HELD_OUT |= {"file.jsonl": [SHORT]}


def sift(*traces, held_out=HELD_OUT):
  return decontaminate.sift(traces, about(held_out=held_out))


def details(sifted):
  return [reason.detail for _, reason in sifted.dropped]


def test_a_long_overlap_in_prompt_or_text():
  hidden = f"As they say, {LONG.upper().replace(',', ' -')} Yes."
  found = sift(trace("x", prompt=hidden), trace(hidden), trace(CLEAN))
  assert texts(found) == [CLEAN]
  assert reasons(found) == ["in an evaluation set"] * 2
  assert all(
    d.startswith("math/test[1]: ann has three red") for d in details(found)
  )
  assert found.figures["held_out"] == {
    "math/test": {"items": 2, "met": 1},
    "file.jsonl": {"items": 1, "met": 0},
  }


def test_eight_words_and_not_seven():
  eight = ["apples", "and", "bob", "takes", "one", "how", "many", "are"]
  for n, met in ((8, 1), (7, 0)):
    for start in range(len(eight) - n + 1):
      said = " ".join(["Well", *eight[start : start + n], "gone"])
      assert len(sift(trace(said)).dropped) == met


def test_a_short_question_is_found_whole():
  """Six words have no 8-gram: they would never be met."""
  asked = f"Question: {SHORT} Answer:"
  found = sift(
    trace("x", prompt=asked), trace("x", prompt=SHORT[:-7] + " sun?")
  )
  assert reasons(found) == ["in an evaluation set"]
  assert details(found) == ["file.jsonl[0]: how far is the blue moon ?"]


def test_signs_count_in_short_questions():
  prompts = ["3a+4b*9", "3a+4b+9", "3a+4b*9c-1"]
  found = sift(
    *(trace("x", prompt=p) for p in prompts), held_out={"x": ["3a+4b*9", " "]}
  )
  assert [t.problem.prompt for t in found.kept] == prompts[1:]


def test_every_item_that_is_met_is_told():
  found = sift(trace(LONG), held_out={"a": [LONG, "z", LONG], "b": [LONG]})
  told = [d.split(":")[0] for d in details(found)[0].split("; ")]
  assert sorted(told) == ["a[0]", "a[2]", "b[0]"]
  assert found.figures["held_out"]["a"] == {"items": 3, "met": 2}


def test_no_set_is_an_error():
  with pytest.raises(ValueError, match="held_out"):
    sift(held_out={})


def test_words():
  assert words.words("It's \uff32\uff25\uff24, 1,5\u2026") == [
    "it",
    "s",
    "red",
    "1",
    "5",
  ]
  assert words.words("\u7b54\u6848x1") == ["\u7b54", "\u6848", "x1"]
  assert words.symbols("a+1 ?") == ["a", "+", "1", "?"]
  assert words.grams(["a", "b"], 3) == ["a b"]
  assert words.grams(["a", "b", "c"], 2) == ["a b", "b c"]


def test_the_one_of_math_that_stands_in_its_test(data_dir, capsys):
  """7,500 problems of MATH's training split against MATH-500's questions."""
  read = lambda name: [
    json.loads(line)["problem"]
    for line in (data_dir / "math" / name).read_text().splitlines()
  ]
  train, test = read("train.jsonl"), read("math500.jsonl")
  same = {" ".join(words.words(x)) for x in test}
  copies = [x for x in train if " ".join(words.words(x)) in same]
  traces = [trace("x", prompt=x) for x in train]
  found = sift(*traces, held_out={"math500": test})
  dropped = {t.problem.prompt for t, _ in found.dropped}
  with capsys.disabled():
    print(
      f"\nMATH: {len(copies)} of {len(train)} also in MATH-500, "
      f"{len(dropped)} share eight words with it: {found.figures}"
    )
  assert set(copies) <= dropped
