from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.grading import expression


def _trees():
  """Pairs of an expression's text, fully in parentheses, and its value."""
  leaf = st.integers(0, 99).map(lambda n: (str(n), Fraction(n)))

  def join(children):
    return st.tuples(children, st.sampled_from("+-*/"), children).map(_apply)

  return st.recursive(leaf, join, max_leaves=8)


def _apply(parts):
  (left, a), sign, (right, b) = parts
  text = f"({left}{sign}{right})"
  if a is None or b is None or (sign == "/" and b == 0):
    return text, None
  step = {"+": a + b, "-": a - b, "*": a * b}
  return text, step[sign] if sign in step else a / b


@settings(max_examples=60)
@given(_trees())
def test_values_are_exact(tree):
  text, value = tree
  read = expression.parse(text)
  assert read is not None and read.value == value


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("8-4-2", 2),
    ("8/4/2", 1),
    ("2+3*4", 14),
    ("(2+3)*4", 20),
    ("2*3+4", 10),
    (" 1 + 1\t", 2),
    ("8/(3-8/3)", 24),
    ("6÷2×3−1", 8),
  ],
)
def test_order_of_operations(text, value):
  read = expression.parse(text)
  assert read is not None and read.value == value


def test_a_division_by_zero_has_no_value():
  read = expression.parse("5+1/(2-2)*3")
  assert read == expression.Expression((1, 2, 2, 3, 5), None)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "()",
    "+",
    "1+",
    "*1",
    "-1",
    "1 1",
    "2 * * 2",
    "2**2",
    "2//2",
    "(1",
    "1)",
    "1+(2",
    "(1)(2)",
    "2(3)",
    "a",
    "1.5",
    "1,5",
    "2^2",
    "1\n+1",
    "1234567890",
    "(" * 50 + "1" + ")" * 50,
    "1+" * 150 + "1",
  ],
)
def test_outside_the_grammar(text):
  assert expression.parse(text) is None
