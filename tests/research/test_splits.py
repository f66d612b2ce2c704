import itertools

import pytest

from research import splits
from research.types import Problem

SPLIT_OF = [
  "train",
  "train",
  "train",
  "train",
  "train",
  "train",
  "ood",
  "train",
  "train",
  "train",
  "train",
  "test",
]
DIGEST = 1552502980267035682


def _problem(n):
  return Problem(str(n), str(n), {"key": str(n), "difficulty": 0})


def test_the_split_of_a_key_never_changes():
  """A changed hash would move test problems into old models' training."""
  assert [splits.assign(_problem(n)) for n in range(12)] == SPLIT_OF
  assert splits.digest("pith") == DIGEST


def test_shares_are_eighty_ten_ten():
  drawn = [splits.assign(_problem(n)) for n in range(5000)]
  shares = [drawn.count(split) / 5000 for split in splits.SPLITS]
  assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)


def test_a_stream_gives_what_there_is_and_then_says_so():
  make = lambda rng, level: _problem(rng.randrange(level))
  supply = splits.stream("t", "test", 0, [100], make)
  there = [n for n in range(100) if splits.assign(_problem(n)) == "test"]
  found = list(itertools.islice(supply, len(there)))
  assert sorted(int(p.prompt) for p in found) == there
  with pytest.raises(ValueError, match=f"after {len(there)} problems"):
    next(supply)


def test_a_split_without_any_problem_ends_a_training_stream_too():
  make = lambda rng, level: _problem(0)
  where = splits.assign(_problem(0))
  assert where != "ood"
  with pytest.raises(ValueError, match="difficulty 3"):
    next(splits.stream("t", "ood", 0, [3], make))
