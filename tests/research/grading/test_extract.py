import time

import pytest

from research.grading import extract


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("#### 5", "5"),
    ("a\n#### 5\n", "5"),
    ("#### 5\r\nmore", "5"),
    ("#### 4\n#### 5", "5"),  # the last one
    ("#### 5\n\n\n", "5"),  # not only on the last line
    ("####5", "5"),
    ("#### 5\n####", None),  # an empty last one does not fall back
    ("#### ", None),
    ("see #### 5", None),
    ("##### 5", None),
    ("", None),
    ("5", None),
    ("####\n5", None),
    ("<think>#### 4</think>\n#### 5", "5"),
    ("<think>#### 4</think>\n5", None),
    ("<think>\n#### 5", None),
  ],
)
def test_strict(text, answer):
  assert extract.strict(text) == answer


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    (r"\boxed{5}", "5"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{4} then \boxed{\sqrt{5}}.", r"\sqrt{5}"),
    (r"\boxed{840} and \boxed{840}", "840"),  # never joined
    (r"\boxed{4} then \boxed{5", None),  # unterminated: no fall back
    (r"\boxed{4} then \boxed{\frac{1}{2}", None),
    (r"\boxed{}", None),
    (r"\boxed{4} \boxed{}", None),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\}}", r"\}"),
    (r"\boxed {5}", "5"),
    (r"\boxed 5", None),
    ("5", None),
  ],
)
def test_boxed(text, answer):
  assert extract.boxed(text) == answer


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("<answer>5</answer>", "5"),
    ("<answer>4</answer><answer>5</answer>", "5"),
    ("<answer>\n1 2\n3 4\n</answer>", "1 2\n3 4"),
    ("<answer></answer>", None),
    ("<answer>4</answer> <answer>5", None),
    ("5</answer>", None),
    ("5", None),
  ],
)
def test_tagged(text, answer):
  assert extract.tagged(text) == answer


@pytest.mark.parametrize(
  ("text", "answer"),
  [
    ("it is 4, no: 5", "5"),
    ("it costs $1,234.50.", "$1,234.50"),
    ("7 - 2", "2"),
    ("7-2", "2"),
    ("minus: -2", "-2"),
    ("1,2,3", "3"),
    ("about 3/4 of it", "3/4"),
    ("x = .5", ".5"),
    ("none", None),
    ("so #### 5 (I think 6)", "5 (I think 6)"),
    (r"\boxed{4} #### 5", "5"),
    (r"#### 5 \boxed{4}", "4"),
    (r"it was 3 \boxed{", None),  # a marker without content is no number
    ("3\n####", None),
    ("<think>3</think>", None),
  ],
)
def test_lenient(text, answer):
  assert extract.lenient(text) == answer


@pytest.mark.parametrize(
  "text",
  [
    "1," * 50_000,
    "\\boxed{" * 50_000,
    "{" * 50_000,
    "#### " * 50_000,
    "####\n" * 50_000,
    "<answer>" * 50_000,
    "1" * 50_000,
    "1 " * 50_000,
    "\\boxed{" + "\\" * 50_000,
  ],
)
def test_long_junk_is_read_in_no_time(text):
  start = time.monotonic()
  for read in (extract.strict, extract.lenient, extract.boxed, extract.tagged):
    read(text)
  assert time.monotonic() - start < 2
