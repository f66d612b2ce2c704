"""The form earns 1 or 0, whatever stands in it."""

import pytest

from research.rewards import form


@pytest.mark.parametrize(
  "text",
  ["<think>so</think>7", "\n<think>\na\n</think>\n<answer>7</answer>\n"],
)
def test_a_thought_and_an_answer(text):
  assert form.bonus(text) == 1.0


@pytest.mark.parametrize(
  "text",
  [
    "",
    "7",
    "so</think>7",
    "<think>so 7",
    "<think></think>7",
    "<think> \n</think>7",
    "<think>so</think> \n",
    "7 <think>so</think>7",
    "<think>a</think>7<think>b</think>8",
    "<think><think>so</think>7",
    "</think><think>7",
  ],
)
def test_anything_else(text):
  assert form.bonus(text) == 0.0


def test_other_marks():
  assert form.bonus("[a]7", opening="[", closing="]") == 1.0
