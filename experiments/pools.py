"""Problems for a stage: a fixed pool, and the ones that belong to a step."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments import files, settings
from experiments.resolve import resolve
from experiments.settings import Problems
from research.data import jsonl
from research.types import Problem


def pool(
  cfg: Problems, size: int, seed: int, inputs: Mapping[str, Any]
) -> list[Problem]:
  """Returns the first `size` problems of a split, fewer where it has no more.

  `inputs` are the stages that have run, one of which may have written them.

  Raises:
    ValueError: the split is empty, or a line of the file is no problem.
  """
  if cfg.path is not None:
    found = read(files.located(cfg.path, inputs))
  else:
    found = resolve(cfg.task).problems(cfg.split, seed, **cfg.args)
  problems = list(itertools.islice(found, size))
  if not problems:
    raise ValueError(
      f"{cfg.task}: the split {cfg.split!r} is empty under {cfg.args}"
    )
  asked = lambda p: cfg.ask.replace(settings.PROMPT, p.prompt)
  return [dataclasses.replace(p, prompt=asked(p)) for p in problems]


def by_key(
  cfg: Problems, size: int, seed: int, inputs: Mapping[str, Any]
) -> dict[str, Problem]:
  """Returns the problems of a pool by their keys."""
  return {p.meta["key"]: p for p in pool(cfg, size, seed, inputs)}


def write(path: pathlib.Path, problems: Iterable[Problem]) -> None:
  """Writes problems for `read`."""
  files.write_lines(path, map(dataclasses.asdict, problems))


def read(path: str) -> Iterator[Problem]:
  """Yields the problems of a file; ValueError at a line that is none."""
  names = {field.name for field in dataclasses.fields(Problem)}
  for place, record in jsonl.lines(path):
    if set(record) != names or "key" not in record["meta"]:
      raise ValueError(f"{place}: a problem has {sorted(names)}, and a key")
    yield Problem(**record)


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
