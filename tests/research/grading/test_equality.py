import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.grading import equality


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("5", 5),
    ("-5", -5),
    ("\u22125", -5),
    ("+5", 5),
    ("5.", 5),
    ("5.0", 5),
    ("05", 5),
    (".5", Fraction(1, 2)),
    ("-.5", Fraction(-1, 2)),
    ("1,234,567.5", Fraction(2469135, 2)),
    ("$5", 5),
    ("-$5", -5),
    (r"\$5", 5),
    ("$5$", 5),
    ("50%", 50),
    (r"50\%", 50),
    ("3/4", Fraction(3, 4)),
    ("-3 / 4", Fraction(-3, 4)),
    (r"\frac{3}{4}", Fraction(3, 4)),
    (r"-\dfrac{3}{4}", Fraction(-3, 4)),
    ("½", Fraction(1, 2)),
  ],
)
def test_numbers_as_people_write_them(text, value):
  assert equality.number(text) == value


@pytest.mark.parametrize(
  "text",
  [
    "",
    " ",
    ".",
    "-",
    "$",
    "five",
    "5 apples",
    "1,2",
    "1,23,456",
    "12,3456",
    "1 000",
    "1e9",
    "1e999999999",
    "9**9**9",
    "2^3",
    "2²",
    "2½",
    "٥",
    "nan",
    "inf",
    "0x10",
    "1_000",
    "1/0",
    r"\frac{1}{0}",
    "--5",
    "5-",
    "1/2/3",
    "__import__('os')",
    "9" * 100_000,
  ],
)
def test_what_is_no_number(text):
  start = time.monotonic()
  assert equality.number(text) is None
  assert time.monotonic() - start < 1


@given(st.integers(-(10**12), 10**12), st.integers(1, 6))
def test_an_integer_equals_its_other_spellings_and_not_its_neighbour(n, zeros):
  for spelling in (f"{n:,}", f"{n}.{'0' * zeros}", f"${n}", f"{2 * n}/2"):
    assert equality.numbers_equal(str(n), spelling)
  assert not equality.numbers_equal(str(n), str(n + 1))
  assert not equality.numbers_equal(str(n), f"{n}{'0' * zeros}1")


def test_two_texts_that_are_no_numbers_are_not_equal_numbers():
  assert not equality.numbers_equal("x", "x")


@pytest.mark.parametrize(
  ("answer", "kind", "value"),
  [
    ("12", "correct", 1.0),
    ("13", "wrong", 0.0),
    ("12 13", "unparsed", 0.0),
    (None, "unparsed", 0.0),
  ],
)
def test_grades(answer, kind, value):
  verdict = equality.grade_number("12", answer)
  assert (verdict.kind, verdict.value) == (kind, value)


def test_a_broken_gold_is_an_error_and_no_wrong_answer():
  with pytest.raises(ValueError, match="gold answer 'some' is not a number"):
    equality.grade_number("some", "5")
  with pytest.raises(ValueError, match="gold answer is empty"):
    equality.grade_text(" ", "5")


@pytest.mark.parametrize("text", ["½5", "½0", "2½"])
def test_a_fraction_character_stands_alone(text):
  assert equality.number(text) is None
  assert equality.number("½") == Fraction(1, 2)


def test_equal_numbers_share_a_form():
  assert equality.canonical("1,200") == equality.canonical("1200.0") == "1200"
  assert equality.canonical("9**9") == "9**9"
  assert equality.canonical(None) is None
