"""Which split a problem belongs to, and an endless supply of one split.

The split is a property of the problem's canonical key alone, so train, test
and ood share no problem whatever seeds and difficulties they are drawn with.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from research.types import Problem

SPLITS = ("train", "test", "ood")
PATIENCE = 10_000


def digest(text: str) -> int:
  """A number from a text that is the same in every process and version."""
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def assign(problem: Problem) -> str:
  """The split of a problem: 80 % of the keys train, 10 % test, 10 % ood."""
  bucket = digest(problem.meta["key"]) % 10
  return "test" if bucket == 8 else "ood" if bucket == 9 else "train"


def check(task: str, split: str) -> None:
  """Raises ValueError on a split that no task has."""
  if split not in SPLITS:
    raise ValueError(
      f"{task}: unknown split {split!r}; choose one of {', '.join(SPLITS)}"
    )


def shuffled[T](rows: Sequence[T], label: str) -> Iterator[T]:
  """All rows once, in the order that a label draws.

  Asked in one order everywhere, so that the first n are a random sample.
  """
  places = range(len(rows))
  order = random.Random(label).sample(places, len(rows))
  return (rows[place] for place in order)


def span(task: str, name: str, bounds: Sequence[int], least: int) -> range:
  """The whole numbers lo..hi of a `(lo, hi)` argument; ValueError if empty."""
  if len(bounds) != 2 or not least <= bounds[0] <= bounds[1]:
    raise ValueError(
      f"{task}: {name}={tuple(bounds)} must be (lo, hi), {least} <= lo <= hi"
    )
  return range(bounds[0], bounds[1] + 1)


def stream(
  task: str,
  split: str,
  seed: int,
  levels: Sequence[Any],
  make: Callable[[random.Random, Any], Problem],
  assign: Callable[[Problem], str] = assign,
) -> Iterator[Problem]:
  """Problems of one split without end, each level equally often.

  `make(rng, level)` draws any problem of a level; those of other splits are
  passed over. Train may repeat a problem, as epochs do; test and ood never do,
  so that n problems are n different questions. Raises ValueError when a level
  has no (further) problem to give.
  """
  check(task, split)
  rng = random.Random(f"{task}/{split}/{seed}")
  seen: set[str] = set()
  while True:
    level = rng.choice(levels)
    drawn = (make(rng, level) for _ in range(PATIENCE))
    fits = lambda p: assign(p) == split and p.meta["key"] not in seen
    problem = next(filter(fits, drawn), None)
    if problem is None:
      raise ValueError(
        f"{task}: after {len(seen)} problems, {PATIENCE} draws at difficulty "
        f"{level} found no new one in split {split!r}; ask for fewer problems "
        "or widen the difficulty"
      )
    if split != "train":
      seen.add(problem.meta["key"])
    yield problem
