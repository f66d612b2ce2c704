"""Too long and too short ones are asked for anew, and graded after."""

import pytest

from research.annotation import rewrite
from research.teachers.answers import Answer
from tests.research.annotation.making import (
  Script,
  about,
  grader,
  reasons,
  texts,
  trace,
)

KINDS = {"A B C": "correct", "A B C D": "correct", "fits": "correct"}
KINDS |= {"wrong": "wrong", "late": "timeout"}


def sift(said):
  """Texts and what a teacher makes of each, within 4 to 8 bytes."""
  say = lambda m: said[m.split("solution:\n")[1].split("\n\nWrite")[0]]
  teacher = Script(say)
  known = about(grader(KINDS), reply=teacher)
  traces = [trace(x, sample=i) for i, x in enumerate(said)]
  found = rewrite.sift(traces, known, shortest=4, longest=8)
  return found, [talk[0]["content"] for talk in teacher.asked]


def test_what_does_not_fit_is_asked_for_anew():
  found, asked = sift({"a b c d e f": "A B C", "fits": None, "ab": "A B C D"})
  assert texts(found) == ["A B C", "fits", "A B C D"]
  assert [t.sample for t in found.kept] == [0, 1, 2]
  assert found.figures == {"asked": 2, "rewritten": 2}
  assert "at most 4 words" in asked[0] and "more briefly" in asked[0]
  assert "at least 3 words" in asked[1] and "in more detail" in asked[1]


def test_what_does_not_come_to_fit_is_dropped_for_its_reason():
  silence = Answer(None, "error", error="x")
  said = {"1": "wrong", "2": "late", "3": "still too long", "4": "a"}
  found, _ = sift(said | {"5": silence, "6": "A B C"})
  assert texts(found) == ["A B C"]
  assert reasons(found) == [
    "rewritten: wrong",
    "rewritten: timeout",
    "still too long",
    "still too short",
    "unanswered",
  ]
  assert found.figures == {"asked": 6, "rewritten": 1}


def test_what_fits_is_not_asked_for():
  found, asked = sift({"12345678": None, "1234": None})
  assert not asked and texts(found) == ["12345678", "1234"]


def test_lengths_that_nothing_has():
  with pytest.raises(ValueError, match="9 to 8 tokens"):
    rewrite.sift([], about(), shortest=9, longest=8)
