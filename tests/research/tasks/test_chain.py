import itertools

import pytest

from research.tasks import chain


def test_the_trace_restates_what_each_step_consumes():
  assert chain.work("3a+4b*9c-1") == "a3+4=7b7*9=3c3-1=2"
  assert chain.work("2a-9") == "a2-9=3"


def test_the_last_running_value_is_the_answer():
  for problem in itertools.islice(chain.problems("ood", 0), 100):
    value = int(problem.prompt[0])
    for sign, digit in zip(
      problem.prompt[2::3], problem.prompt[3::3], strict=True
    ):
      step = {"+": value + int(digit), "-": value - int(digit)}
      value = step.get(sign, value * int(digit)) % 10
    assert problem.answer == str(value)


def test_no_operation_can_be_skipped():
  """Each step is invertible: other starts give other answers."""
  for problem in itertools.islice(chain.problems("train", 0), 50):
    ends = {chain.work(s + problem.prompt[1:])[-1] for s in "0123456789"}
    assert len(ends) == 10


def test_lengths_are_drawn_evenly_and_can_be_overridden():
  drawn = itertools.islice(chain.problems("train", 0, lengths=(6, 9)), 2000)
  lengths = [p.meta["difficulty"] for p in drawn]
  assert {min(lengths), max(lengths)} == {6, 9}
  assert all(400 < lengths.count(n) < 600 for n in range(6, 10))


def test_hard_training_problems_share_no_key_with_ood_and_test():
  take = lambda split: {
    p.meta["key"]
    for p in itertools.islice(chain.problems(split, 0, lengths=(2, 3)), 400)
  }
  assert not take("train") & take("ood")
  assert not take("test") & take("ood")


def test_an_exhausted_split_says_so():
  with pytest.raises(ValueError, match=r"no new one in split 'test'.*widen"):
    list(chain.problems("test", 0, lengths=(1, 1)))


def test_a_training_split_may_repeat():
  drawn = itertools.islice(chain.problems("train", 0, lengths=(1, 1)), 1000)
  assert len({p.meta["key"] for p in drawn}) < 210


@pytest.mark.parametrize("lengths", [(0, 3), (4, 3), (3,), (-2, -1)])
def test_impossible_lengths_are_refused(lengths):
  with pytest.raises(ValueError, match=r"lengths=.*lo <= hi"):
    chain.problems("train", 0, lengths=lengths)


def test_there_are_as_many_steps_as_names():
  assert next(chain.problems("train", 0, lengths=(26, 26))).prompt[-3] == "z"
  with pytest.raises(ValueError, match="26 steps at most"):
    chain.problems("train", 0, lengths=(26, 27))


@pytest.mark.parametrize(
  "prompt", ["", "3", "3+4", "3a+", "33a+4", "3a**4", "3a+4\n", "3a+4c+1"]
)
def test_what_is_no_chain_is_refused(prompt):
  with pytest.raises(ValueError, match="is not a chain"):
    chain.work(prompt)
