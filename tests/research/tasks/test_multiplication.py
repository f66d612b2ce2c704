import itertools
import re

import pytest

from research.tasks import multiplication


def test_the_scratchpad_as_documented():
  assert multiplication.work(34, 27).splitlines() == [
    "7:4*7+0=82,3*7+2=32>832",
    "2:4*2+0=80,3*2+0=60>086",
    "8+0+0=80,3+8+0=11,2+6+1=90>819",
  ]


@pytest.mark.parametrize("digits", [(1, 1), (2, 1), (3, 3), (1, 4), (5, 5)])
def test_every_step_is_true_and_the_last_row_is_the_product(digits):
  drawn = multiplication.problems("train", 0, digits=[digits])
  for problem in itertools.islice(drawn, 30):
    a, b = map(int, problem.prompt.split("*"))
    assert (len(str(a)), len(str(b))) == digits
    work = multiplication.work(a, b)
    assert int(work.rpartition(">")[2][::-1]) == a * b == int(problem.answer)
    for left, sign, right, carry, low, high in re.findall(
      r"(\d)([*+])(\d)\+(\d)=(\d)(\d)", work
    ):
      left, right = int(left), int(right)
      value = left * right if sign == "*" else left + right
      assert value + int(carry) == int(low) + 10 * int(high)


def test_the_order_of_the_factors_makes_no_other_problem():
  drawn = multiplication.problems("train", 0, digits=[(1, 1)])
  keys = {p.meta["key"] for p in itertools.islice(drawn, 500)}
  assert all(key[0] <= key[2] for key in keys)
  prompts = {p.prompt for p in itertools.islice(drawn, 500)}
  assert any(p[0] > p[2] for p in prompts)


def test_hard_training_problems_share_no_key_with_ood():
  take = lambda split: {
    p.meta["key"]
    for p in itertools.islice(
      multiplication.problems(split, 0, digits=[(3, 2)]), 1000
    )
  }
  assert not take("train") & take("ood")


def test_an_exhausted_split_says_so():
  with pytest.raises(ValueError, match="no new one in split 'ood'"):
    list(multiplication.problems("ood", 0, digits=[(1, 1)]))


@pytest.mark.parametrize("digits", [[(0, 2)], [(2,)], [(2, -1)], []])
def test_impossible_digits_are_refused(digits):
  with pytest.raises(ValueError, match=r"digits=.*at least 1"):
    multiplication.problems("train", 0, digits=digits)


def test_the_first_wrong_line():
  problem = next(multiplication.problems("train", 0, digits=[(3, 2)]))
  right = multiplication.trace(problem, 0)
  found = lambda text: multiplication.first_error(problem, text)
  assert found(right) is None and found(right + "\n") is None
  lines = right.split("\n")
  for place, line in enumerate(lines):
    wrong = [*lines[:place], line + "0", *lines[place + 1 :]]
    assert found("\n".join(wrong)) == (place, line)
  assert found("\n".join(lines[:-1])) == (3, lines[-1])
  assert found(right + "\nmore") == (4, "")
  assert found("") == (0, lines[0])


def test_a_skill_is_the_digits_of_the_factors():
  for digits in ((3, 1), (1, 3), (2, 2)):
    problem = next(multiplication.problems("train", 0, digits=[digits]))
    assert multiplication.skill(problem) == f"{digits[0]}x{digits[1]}"
