"""The right beginning of a wrong attempt, to the letter."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import first_error
from research.tasks import multiplication

PROBLEMS = list(itertools.islice(multiplication.problems("train", 0), 20))
PROBLEM = PROBLEMS[0]
RIGHT = multiplication.trace(PROBLEM, 0)
LINES = RIGHT.split("\n")


def find(text, problem=PROBLEM):
  return first_error.find(multiplication, problem, text)


def test_what_is_right_has_no_slip():
  assert find(RIGHT) is None and find(f"\n{RIGHT}\n ") is None


@pytest.mark.parametrize("place", range(len(LINES)))
def test_each_line_in_turn(place):
  wrong = "\n".join([*LINES[:place], LINES[place] + "0", *LINES[place + 1 :]])
  slip = find(wrong)
  assert slip.begun == "".join(f"{line}\n" for line in LINES[:place])
  assert slip.line == LINES[place]
  assert slip.mended == "\n".join(LINES[: place + 1])


@pytest.mark.parametrize(
  ("text", "begun", "line"),
  [
    ("", "", LINES[0]),
    ("\n what?", "", LINES[0]),
    (LINES[0], LINES[0], LINES[1]),  # it just ends
    (f"{LINES[0]}  \n\n", LINES[0], LINES[1]),
    (f"\n{LINES[0]}\nno", f"\n{LINES[0]}\n", LINES[1]),
    (f"{RIGHT}\nmore", f"{RIGHT}\n", ""),
  ],
)
def test_odd_ends(text, begun, line):
  assert find(text) == (begun, line)


ALPHABET = sorted({*RIGHT, " ", "\t", "é"})


@st.composite
def attempts(draw):
  """A product and an attempt at it: cut, joined, and with letters changed."""
  problem = draw(st.sampled_from(PROBLEMS))
  text = multiplication.trace(problem, 0)
  for _ in range(draw(st.integers(0, 3))):
    at = draw(st.integers(0, len(text)))
    stop = draw(st.integers(at, min(at + 3, len(text))))
    text = text[:at] + draw(st.text(ALPHABET, max_size=3)) + text[stop:]
  return problem, text[: draw(st.integers(0, len(text)))]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(attempts())
def test_a_beginning_is_the_attempts_own_and_right(attempt):
  problem, text = attempt
  slip = find(text, problem)
  lines = multiplication.trace(problem, 0).split("\n")
  if slip is None:
    assert text.strip() == "\n".join(lines)
    return
  assert text.startswith(slip.begun)
  kept = slip.begun.strip().split("\n") if slip.begun else []
  assert kept == lines[: len(kept)], "a wrong line was kept"
  if slip.line:
    assert slip.line == lines[len(kept)]
    rest = "\n".join(["", *lines[len(kept) + 1 :]])
    assert find(slip.mended + rest, problem) is None
  # No more of the attempt is right: its next line is another.
  said = text.strip().split("\n")
  assert said[len(kept) :][:1] != lines[len(kept) :][:1]
