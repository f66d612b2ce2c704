import pytest

from research.annotation import format as form
from tests.research.annotation.making import about, reasons, texts, trace

GOOD = ["x", "<think>a</think>b", " <think>\n</think>\n\nb", "a < b, think"]
BAD = {
  "x</think>y": "thinking not marked once",
  "<think>x": "thinking not marked once",
  "so <think>x</think>y": "thinking not marked once",
  "<think>x<think>y</think>z": "thinking not marked once",
  "<think>x</think>y</think>z": "thinking not marked once",
  "<think>x</think>y<think>z</think>": "thinking not marked once",
  "<think>x</think> \n": "no answer behind the thinking",
}


def test_thinking_once_or_not_at_all():
  found = form.sift([trace(x) for x in GOOD], about())
  assert texts(found) == GOOD


@pytest.mark.parametrize("text", BAD)
def test_other_marks(text):
  assert reasons(form.sift([trace(text)], about())) == [BAD[text]]


def test_what_is_cut_off():
  found = form.sift([trace("x"), trace("y", finish="length")], about())
  assert texts(found) == ["x"] and reasons(found) == ["cut off"]


def test_length_is_in_the_students_tokens():
  """Four letters are eight of its bytes, whatever the teacher counted."""
  traces = [trace("\u00e9" * n) for n in (1, 2, 4, 5)]
  found = form.sift(traces, about(), shortest=4, longest=8)
  assert texts(found) == ["\u00e9" * 2, "\u00e9" * 4]
  assert reasons(found) == ["too short", "too long"]
  assert found.dropped[1][1].detail == "10 tokens"
