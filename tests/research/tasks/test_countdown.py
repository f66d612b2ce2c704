import dataclasses
import itertools
import time

import pytest

from research.grading import expression
from research.tasks import countdown
from research.types import Problem

META = {"key": "3 5 7 > 22", "difficulty": 3, "numbers": [3, 5, 7]}
PROBLEM = Problem("make 22 from 3 5 7", "5*3+7", {**META, "target": 22})


def _kind(answer, problem=PROBLEM):
  return countdown.reward(problem, f"#### {answer}").kind


def _take(split, n, **args):
  return list(itertools.islice(countdown.problems(split, 0, **args), n))


@pytest.mark.parametrize(
  "answer", ["5*3+7", "7 + (3*5)", "((7))+5*3", "7+5×3", "5*3 + 7 "]
)
def test_any_solution_is_correct(answer):
  assert _kind(answer) == "correct"


@pytest.mark.parametrize(
  "answer",
  [
    "22",  # the target itself
    "5*3+7+7-7",  # a number too often
    "15+7",  # a number that was not given
    "5*3",  # a number left out
    "5*3-7",
    "7/(3-3)+5",  # division by zero, and the wrong numbers
    "3/(5-5)+7",
  ],
)
def test_other_expressions_are_wrong(answer):
  assert _kind(answer) == "wrong"


@pytest.mark.parametrize(
  "answer",
  [
    "9**9**9",
    "7//3+5",
    "__import__('os').system('true')",
    "5*3+7=22",
    "5*3+7, 3*5+7",
    "+5*3+7",
    "(5*3+7",
    "5*3+7)",
    "5 3 7",
    "5*3+7.0",
    "(" * 90 + "7" + ")" * 90,
    "1" * 100_000,
    "5*" * 100_000 + "7",
    "٥*3+7",
  ],
)
def test_what_is_not_in_the_grammar_is_unparsed_at_once(answer):
  start = time.monotonic()
  assert _kind(answer) == "unparsed"
  assert time.monotonic() - start < 1


def test_equal_numbers_are_counted_as_often_as_they_are_given():
  twice = {**META, "numbers": [5, 5, 2], "target": 12}
  problem = Problem("make 12 from 2 5 5", "5+5+2", twice)
  assert _kind("5+5+2", problem) == "correct"
  assert _kind("5*2+2", problem) == "wrong"
  assert _kind("5+2+2+3", problem) == "wrong"


def test_an_equation_and_a_bare_expression_count_only_when_lenient():
  for text in ("so 7+5*3 = 22", "#### 5*3+7 = 22", "\\boxed{5*3+7}"):
    assert countdown.reward(PROBLEM, text).kind == "unparsed"
    assert countdown.lenient(PROBLEM, text).kind == "correct"
  assert countdown.lenient(PROBLEM, "it is 22").kind == "unparsed"
  # The last expression counts, not the best.
  assert countdown.lenient(PROBLEM, "7+5*3 or 7+5+3").kind == "wrong"


def test_one_target_in_ten_is_held_out_of_train_and_test():
  targets = range(10, 100)
  assert sum(map(countdown.held_out, targets)) == 9
  for split in ("train", "test"):
    drawn = {p.meta["target"] for p in _take(split, 400)}
    assert not any(map(countdown.held_out, drawn)) and len(drawn) > 50
  held = {p.meta["target"] for p in _take("ood", 150)}
  assert held == set(filter(countdown.held_out, targets))


def test_order_of_the_numbers_makes_no_other_problem():
  for problem in _take("train", 50):
    numbers = problem.meta["numbers"]
    assert numbers == sorted(numbers)
    assert problem.meta["key"] == (
      f"{' '.join(map(str, numbers))} > {problem.meta['target']}"
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_traces_say_nothing_false(count):
  for problem in _take("train", 30, count=(count, count)):
    text = countdown.trace(problem, 0)
    *search, last = text.splitlines()
    for line in search:
      state, _, tried = line.partition(": ")
      for step in tried.removesuffix(" yes").removesuffix(" no").split():
        made, _, value = step.partition("=")
        read = expression.parse(made)
        assert read is not None and read.value == int(value)
        assert all(str(n) in state.split() for n in read.numbers)
    found = expression.parse(last.removeprefix("#### "))
    assert found is not None and found.value == problem.meta["target"]


def test_the_seed_varies_the_search():
  texts = {countdown.trace(PROBLEM, seed) for seed in range(20)}
  assert len(texts) > 1


def test_searches_meet_dead_ends_and_stay_short():
  texts = [countdown.trace(p, 0) for p in _take("train", 100)]
  assert any(" no" in text for text in texts)
  assert max(map(len, texts)) < 260


def test_what_cannot_be_reached_has_no_trace():
  meta = {**META, "numbers": [1, 1], "target": 50}
  with pytest.raises(ValueError, match="no solution"):
    countdown.trace(Problem("make 50 from 1 1", "", meta), 0)


@pytest.mark.parametrize(
  ("args", "said"),
  [
    ({"count": (1, 3)}, "count="),
    ({"count": (3, 9)}, "at most 5"),
    ({"largest": 0}, "largest=0"),
    ({"targets": (30, 20)}, "targets="),
  ],
)
def test_impossible_arguments_are_refused(args, said):
  with pytest.raises(ValueError, match=said):
    countdown.problems("train", 0, **args)


def test_targets_out_of_reach_say_so():
  drawn = countdown.problems(
    "train", 0, count=(2, 2), largest=3, targets=(500, 600)
  )
  with pytest.raises(ValueError, match=r"do not reach a target in 500..600"):
    next(drawn)


def test_an_exhausted_split_says_so():
  drawn = countdown.problems("test", 0, count=(2, 2), largest=3, targets=(1, 9))
  with pytest.raises(ValueError, match="no new one in split 'test'"):
    list(drawn)


def test_a_skill_is_the_operations_of_the_solution():
  assert countdown.skill(PROBLEM) == "plus_times"
  for answer, skill in (("8/2-3*1", "minus_times_over"), ("9", "")):
    problem = dataclasses.replace(PROBLEM, answer=answer)
    assert countdown.skill(problem) == skill


def test_problems_of_skills():
  wanted = ("plus_times", "minus_over")
  found = _take("test", 40, skills=wanted)
  assert {countdown.skill(p) for p in found} == set(wanted)
  every = _take("test", 200)
  assert len({countdown.skill(p) for p in every}) > 5, "no choice was needed"
  with pytest.raises(ValueError, match=r"by \('modulo',\); .*other skills"):
    _take("test", 1, skills=("modulo",))
