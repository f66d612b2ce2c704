"""A curriculum: the next level opens when the student passes the one before.

Bengio et al. 2009; from basic to complex chains of thought, by the student's
own measured pass rate. The levels may be depths, lengths, or chains of which
ever less is written (research.annotation.shorten).
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from experiments import corpora, loop, pools, settings, student
from experiments.corpora import Corpus
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from research import sharding
from research.data.loader import Loader
from research.models.config import Lora
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.training import objectives, optimizers
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Level:
  """`corpora` to read, and the `problems` whose pass rate opens the next."""

  corpora: tuple[Corpus, ...]
  problems: Problems


@dataclasses.dataclass(frozen=True)
class Probe:
  """`every` so many steps `count` problems are tried once each.

  A level is passed at `passed`, a share in [0, 1]; above 1 never, so that
  `patience`, the most steps on a level, alone moves on: a multiple of `every`.
  The problems had better be of a split that the texts are not from.
  """

  every: int
  count: int
  new_tokens: int
  passed: float
  patience: int
  temperature: float = 1.0

  def __post_init__(self):
    """Raises ValueError on counts of none."""
    if min(self.every, self.count, self.new_tokens, self.patience) < 1:
      raise ValueError(f"{self}: every count must be at least 1")
    if self.patience % self.every:
      raise ValueError(f"{self}: patience must be a multiple of every")


@dataclasses.dataclass(frozen=True)
class Config:
  """A step is `rows` rows of the open levels' texts.

  The newest level has the share 1 - `review` of them, by records, and those
  before it the rest; the first has all. See experiments.stages.distill for the
  other fields.
  """

  run: Run
  levels: tuple[Level, ...]
  probe: Probe
  review: float
  loss: Plugin
  rows: int
  length: int
  shards: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1
  start: Stage | None = None
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on no level, and a review of all or nothing."""
    if not self.levels or not 0 < self.review < 1:
      raise ValueError(
        f"curriculum: {len(self.levels)} levels, review {self.review}; at "
        "least one is wanted, and a share between 0 and 1"
      )
    student.check(self)
    student.check_rows(self, self.rows, self.length)


def mixture(config: Config, level: int) -> list[Corpus]:
  """Returns the corpora that are open on a level, in their shares."""

  def shared(found: tuple[Corpus, ...], share: float) -> list[Corpus]:
    whole = sum(corpus.weight for corpus in found)
    return [
      dataclasses.replace(c, weight=c.weight * share / whole) for c in found
    ]

  newest = config.levels[level].corpora
  if not level:
    return shared(newest, 1)
  before = [
    corpus
    for earlier in config.levels[:level]
    for corpus in shared(earlier.corpora, config.review / level)
  ]
  return [*before, *shared(newest, 1 - config.review)]


class Ladder:
  """The open level, since when, and what is read on it."""

  def __init__(self, config: Config, inputs: dict[str, Any], mesh: Mesh):
    """Stands on the first level; the problems of all are drawn already."""
    self._config, self._inputs, self._mesh = config, inputs, mesh
    self._pools = [
      pools.pool(level.problems, config.probe.count, config.run.seed, inputs)
      for level in config.levels
    ]
    self._climb(0, 0)

  def _climb(self, level: int, step: int) -> None:
    config = self._config
    self._level, self._since = level, step
    self._loader: Loader = corpora.loader(
      config.run,
      mixture(config, level),
      self._inputs,
      rows=config.rows,
      length=config.length,
      shards=config.shards,
      seed=config.run.seed + level,  # not the same texts in the same order
    )

  def _rate(self, state: TrainState, step: int) -> float:
    """Returns the share of the level's problems that the student solves."""
    config, probe = self._config, self._config.probe
    task = resolve(config.levels[self._level].problems.task)
    tokenizer = settings.load_tokenizer(config.run)
    asked = self._pools[self._level]
    completions = rollout.write(
      student.decoder(config),
      student.params(config, state),
      tokenizer,
      asked,
      jax.random.fold_in(state.key, step),
      rollout.Budget(
        Sampling(probe.temperature), probe.new_tokens, probe.count
      ),
      self._mesh,
    )
    graded = rollout.grade(task, tokenizer, asked, completions)
    known = [r["verdict"] for r in graded if r["reward"] is not None]
    return known.count("correct") / max(len(known), 1)

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns the next batch, the level, and its pass rate where measured."""
    probe, seen = self._config.probe, {}
    spent = step - self._since
    if spent and spent % probe.every == 0:
      rate = self._rate(state, step)
      seen["pass_rate"] = (rate, 1.0)
      done = rate >= probe.passed or spent >= probe.patience
      if done and self._level + 1 < len(self._config.levels):
        self._climb(self._level + 1, step)
    batch = next(self._loader)
    seen |= {"level": (float(self._level), 1.0)}
    seen |= corpora.look(batch, self._loader)
    return sharding.place(batch, self._mesh), seen

  def state(self) -> dict[str, Any]:
    """Returns where it stands, as JSON."""
    stand = {"level": self._level, "since": self._since}
    return stand | {"reading": self._loader.state()}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes back to where it stood."""
    self._climb(state["level"], state["since"])
    self._loader.restore(state["reading"])


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student up the levels; returns how high it came."""
  mesh = student.make_mesh(config)
  ladder = Ladder(config, inputs, mesh)
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  objective = objectives.imitation(student.decoder(config), loss, mesh)
  student.train(
    config, inputs, workdir, objective, ladder.draw, position=ladder
  )
  level = ladder.state()["level"]
  return {"level": level, **student.adapters(config)}
