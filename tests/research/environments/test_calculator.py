"""The calculator computes what is asked, and nothing else."""

import itertools

import pytest

from research.environments import calculator
from research.grading import expression
from research.sampling import episodes
from research.types import Problem

PROBLEM = Problem("48*37-905", "871", {"key": "k"})


def talk(*said):
  turn = calculator.start(PROBLEM, 0)
  for words in said:
    turn = calculator.step(turn.state, words)
  return turn


def test_the_conversation_as_documented():
  said = episodes.recite(calculator, PROBLEM, 0)
  contents = [message["content"] for message in said.messages]
  assert contents == [
    "48*37-905",
    "calc 48*37",
    "1776",
    "calc 1776-905",
    "871",
    "#### 871",
  ]
  assert said.verdict.kind == "correct"


@pytest.mark.parametrize(
  "call, said",
  [
    ("calc 1/3", "1/3"),
    ("first\ncalc 2*(3+4)", "14"),
    ("calc 1/0", "error"),
    ("calc 9**9", "error"),
    ("calc __import__('os')", "error"),
    ("calc " + "9" * 300, "error"),
    ("calc ", "error"),
  ],
)
def test_a_call(call, said):
  turn = talk(call)
  assert turn.text == said and turn.verdict is None
  failed = int(said == "error")
  assert calculator.facts(turn.state) == {"calls": 1, "failed": failed}


@pytest.mark.parametrize(
  "words, kind",
  [
    ("#### 871", "correct"),
    ("#### 870", "wrong"),
    ("871", "unparsed"),
    ("calc 1+1\nno more", "unparsed"),
    ("", "unparsed"),
  ],
)
def test_anything_else_is_an_answer(words, kind):
  assert talk("calc 1+1", words).verdict.kind == kind


def test_calls_are_bounded():
  turn = talk(*["calc 1+1"] * calculator.CALLS)
  assert turn.verdict is None
  assert calculator.step(turn.state, "calc 1+1").verdict.kind == "unparsed"
  assert calculator.step(turn.state, "#### 871").verdict.kind == "correct"


def test_values_are_whole_and_the_answer_is_right():
  for problem in itertools.islice(calculator.problems("ood", 0), 200):
    assert int(problem.answer) >= 0
    assert set(problem.prompt) <= set("0123456789+-*")
    assert expression.parse(problem.prompt).value == int(problem.answer)
