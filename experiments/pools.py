"""Problems for a stage: a fixed pool, and the ones that belong to a step."""

import itertools

import numpy as np

from experiments.resolve import resolve
from experiments.settings import Problems
from research.types import Problem


def pool(cfg: Problems, size: int, seed: int) -> list[Problem]:
  """Returns the first `size` problems of a split, fewer where it has no more.

  Raises:
    ValueError: the split is empty.
  """
  task = resolve(cfg.task)
  found = task.problems(cfg.split, seed, **cfg.args)
  problems = list(itertools.islice(found, size))
  if not problems:
    raise ValueError(
      f"{cfg.task}: the split {cfg.split!r} is empty under {cfg.args}"
    )
  return problems


def of_step[T](problems: list[T], seed: int, step: int, count: int) -> list[T]:
  """Returns the `count` problems of a step: each epoch is shuffled anew.

  They depend on (seed, step) alone, so that a resumed run needs no position.
  """
  size = len(problems)
  first, last = step * count, (step + 1) * count - 1
  orders = {
    epoch: np.random.default_rng((seed, epoch)).permutation(size)
    for epoch in range(first // size, last // size + 1)
  }
  places = (divmod(i, size) for i in range(first, last + 1))
  return [problems[orders[epoch][place]] for epoch, place in places]
