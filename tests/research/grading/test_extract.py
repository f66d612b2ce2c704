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
    ("<answer>5</answer><answer>5</answer>", None),
    ("<answer>4</answer><answer>5</answer>", None),
    ("<answer><answer>5</answer></answer>", None),
    ("<!-- <answer>5</answer> -->", None),
    ("<answer>x % y</answer>", "x % y"),  # no comment: it is the answer
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
  ("text", "answer"),
  [
    (r"\boxed{5}", "5"),
    (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    (r"\boxed{4}, no: \boxed{5}", "5"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\fbox{5}", "5"),
    ("#### 1,234", "1,234"),
    ("so #### 5\nmore", "5"),
    ("**Final Answer**\n\n7", "7"),
    ("### **Final Answer**\n\n- 7\n", "7"),
    ("**Answer.**\n**7**.", "7"),
    ("## Answer\n\\(x = 3\\)\n\nas said.", r"\(x = 3\)"),
    ("Final answer\r\n7\r\n\r\nBye", "7"),
    ("**Final Answer**\n$$\n7\n$$", "7"),
    ("**Final Answer**\n\\[\n\\boxed{7}\n\\]", "7"),
    ("The answer is 5.\n\n### Answer\nAs shown above.", "5"),
    ("The answer is $5$.\n\n## Answer\n\nI hope it is correct.", "$5$"),
    ("## Answer\nWe rule out A. Thus the only one left is:\n\nB", "B"),
    ("\\boxed{5}\n\n## Answer\n12 apples less 7 leave 5", "5"),
    ("## Answer\n\n1. First we compute 3+4=7\n2. So it is 9.", None),
    ("## Answer\nThe sum is $3+4$. So we get", None),
    ("## Answer\n$x = 5$ as $y = 3$", None),
    ("a final answer\n7", None),
    ("**answer\n7", None),
    ("**Final Answer**", None),
    ("##### 5", None),
    ("<answer>\n5\n</answer>", "5"),
    (r"<answer>\boxed{5}</answer>", "5"),
    ("<answer>The answer is 5.</answer>", "5"),
    ("The answer is 5.", "5"),
    ("The answer is 3.5.", "3.5"),
    ("The answer is: 3.5", "3.5"),
    ("**Answer:** B", "B"),
    ("Answer: $x = 5$", "$x = 5$"),
    ("The final answer is: $\\frac12$. I hope it is correct.", "$\\frac12$"),
    ("The answer is $27\\text{ sq. units}$.", r"$27\text{ sq. units}$"),
    ("The answer to the question is 12 because it is.", "12"),
    ("the answer is not 5", "not 5"),
    ("The answer is:\n\n5\n", "5"),
    (r"\boxed{3} The answer is 4.", "4"),  # whichever stands last
    (r"The answer is 4: \boxed{3}", "3"),
    (r"#### 3 and \boxed{4}", "4"),
    ("\\boxed{5}\n#### Verification\nIt is.", "5"),
    (r"\boxed{44} so our answer is correct.", "44"),
    ("(B)", "B"),
    ("We choose\n**(C)**", "C"),
    ("A man walks", None),
    ("no answer here", None),
    ("", None),
    # The last one counts, also where it holds nothing.
    (r"\boxed{4} \boxed{5", None),
    (r"\boxed{4} \boxed{}", None),
    (r"The answer is 4. \boxed{", None),
    (r"\boxed{4} ####", None),
    (r"\boxed{4} <answer>5", None),
    ("<answer></answer>", None),
    (r"\boxed{4} <answer></answer>", None),
    ("<answer>5</answer><answer>5</answer>", None),
    ("<answer>4</answer><answer>5</answer>", None),
    ("<answer><answer>5</answer></answer>", None),
    # The thinking is no answer.
    (r"<think>\boxed{4}</think> \boxed{5}", "5"),
    (r"<think>\boxed{4}</think> 5", None),
    (r"<think>\boxed{4}", None),
    # Nor is a comment.
    (r"\boxed{3} <!-- \boxed{5} -->", "3"),
    (r"<!-- \boxed{5} -->", None),
    (r"\boxed{3} <!-- \boxed{5}", "3"),
    (r"\boxed{3} % \boxed{5}", "3"),
    ("% \\boxed{5}", None),
    (r"\begin{comment}\boxed{5}\end{comment}", None),
    (r"\iffalse \boxed{5} \fi", None),
    ("```python\n# \\boxed{5}\n// the answer is 5\n```", None),
    ("```python\n#### 5\n```", None),
    ("```\n#### 5\n```", "5"),
    ("[//]: # (the answer is 5)", None),
    (r"A rise of 50% gives \boxed{5}", "5"),
    (r"A rise of 50 % gives \boxed{5}", "5"),
    # Nor are all choices.
    (r"\boxed{A, B, C, D}", None),
    ("The answer is A, B, C or D", None),
    (r"\boxed{\text{A, B, C}}", None),
    (r"\boxed{B, D}", "B, D"),
  ],
)
def test_final_answer(text, answer):
  assert extract.final_answer(text) == answer


@pytest.mark.parametrize(
  "text",
  [
    "<!--" * 50_000,
    "\\iffalse" * 50_000,
    "answer is " * 50_000,
    "answer to " * 50_000,
    "```\n" * 50_000,
    "```python\n" * 50_000,
    "a \t" * 50_000 + "%",
    " " * 200_000,
    "A, " * 50_000,
    "answer is $" + "\\$" * 50_000,
    "answer is " + "$" * 50_000,
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
  extract.final_answer(text)
  extract.final_answer(rf"\boxed{{{text}}}")
  assert time.monotonic() - start < 5  # linear, on a busy machine
