import pytest

from research.annotation import verify
from tests.research.annotation.making import (
  about,
  grader,
  reasons,
  texts,
  trace,
)

KINDS = {"a": "correct", "b": "wrong", "c": "unparsed", "d": "timeout"}
KINDS |= {"e": "error", "f": RuntimeError("boom")}


def test_other_verdicts_are_reasons_and_errors_are_no_wrong_answers():
  found = verify.sift([trace(x) for x in "abcdef"], about(grader(KINDS)))
  assert texts(found) == ["a"]
  expected = ["wrong", "unparsed", "timeout", "error", "error"]
  assert reasons(found) == expected
  assert found.dropped[-1][1].detail == "RuntimeError: boom"


def test_a_real_reward():
  found = verify.sift([trace("x\n#### 2"), trace("#### 3")], about())
  assert texts(found) == ["x\n#### 2"] and reasons(found) == ["wrong"]


@pytest.mark.parametrize("rest, raises", [("bbb", True), ("bbabb", False)])
def test_a_broken_solver_is_named(rest, raises):
  traces = [trace(x) for x in "abb" + "a" + rest]
  known = about(grader(KINDS))
  if raises:
    with pytest.raises(ValueError, match="grader rejects 3 traces in a row"):
      verify.sift(traces, known, in_a_row=3)
  else:
    verify.sift(traces, known, in_a_row=3)
  assert len(verify.sift(traces, known).kept) == rest.count("a") + 2
