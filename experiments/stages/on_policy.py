"""On-policy distillation: the student writes, a teacher judges each token.

With a `share` below 1 some steps are on written text instead, as in GKD
(2306.13649, algorithm 1); with several domains each has a teacher of its own.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from experiments import corpora, loop, student
from experiments.corpora import Corpus
from experiments.resolve import resolve
from experiments.rollouts import Rollout, Rollouts
from experiments.settings import Plugin, Problems, Run, Stage
from research import sharding
from research.data.loader import Loader
from research.models.config import Lora
from research.training import objectives, optimizers
from research.training.step import Objective
from research.types import Batch, TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Domain:
  """What one teacher teaches: `pool` problems, and what is written on them.

  `teacher` is the stage of its frozen model; steps are divided among domains by
  `weight`.
  """

  teacher: Stage
  problems: Problems
  pool: int
  weight: float = 1.0
  corpora: tuple[Corpus, ...] = ()


@dataclasses.dataclass(frozen=True)
class Share:
  """The share of steps on the student's own writing: `first`, then `last`.

  It moves linearly from the first step to the last. All other steps are on
  `rows` rows of a domain's corpora, read from `shards` shards: under the
  stage's loss (GKD), or, with a `loss` of their own, as plain text, such as
  research.losses.supervised (MiniLLM's language modelling).
  """

  first: float = 1.0
  last: float = 1.0
  rows: int = 0
  shards: int = 1
  loss: Plugin | None = None

  def __post_init__(self):
    """Raises ValueError on what is no share, and where nothing is written."""
    if not 0 <= min(self.first, self.last) <= max(self.first, self.last) <= 1:
      raise ValueError(f"{self}: shares lie in [0, 1]")
    if self.written != (self.rows > 0):
      raise ValueError(
        f"{self}: rows of written text are wanted where a share is below 1, "
        "and only there"
      )

  @property
  def written(self) -> bool:
    """Whether any step may be on written text."""
    return min(self.first, self.last) < 1

  def at(self, step: int, steps: int) -> float:
    """Returns the share at one step of so many."""
    return self.first + (self.last - self.first) * step / max(steps - 1, 1)


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` is the student's stage; each domain has a teacher.

  `loss` compares whole distributions, such as research.losses.reverse_kl. With
  `lora` only adapters over `start` are trained; what is frozen may be held in
  few bits, as in experiments.stages.distill.
  """

  run: Run
  start: Stage | None
  domains: tuple[Domain, ...]
  rollout: Rollout
  loss: Plugin
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  share: Share = Share()
  microbatches: int = 1
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None
  teacher_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on no domain, and on one that has nothing to read."""
    if not self.domains or min(d.weight for d in self.domains) <= 0:
      raise ValueError(f"on_policy: domains of weight above 0: {self.domains}")
    for domain in self.domains:
      if bool(domain.corpora) != self.share.written:
        raise ValueError(
          f"on_policy: the domain of {domain.teacher!r} wants corpora where "
          f"share is below 1, and only there: {self.share}"
        )
    student.check(self)
    student.check_heard(self.loss)
    student.check_rows(self, self.share.rows, self.rollout.length)


def to_batch(trajectory: Trajectory) -> Batch:
  """Returns the sampled rows as text to learn on: the policy's tokens count."""
  return Batch(
    trajectory.tokens_BT,
    trajectory.mask_BT,
    trajectory.positions_BT,
    trajectory.segments_BT,
  )


class Mixture:
  """Steps of all domains, sampled or written; the position of what is read."""

  def __init__(
    self,
    config: Config,
    inputs: dict[str, Any],
    workdir: pathlib.Path,
    mesh: Mesh,
  ):
    """Draws every domain's pool of problems, and opens its corpora."""
    self._config, self._mesh = config, mesh
    self._rollouts = [
      Rollouts(
        config,
        inputs,
        domain.problems,
        domain.pool,
        workdir,
        mesh,
        marks={"teacher": domain.teacher},
      )
      for domain in config.domains
    ]
    self._loaders: list[Loader] = []
    if config.share.written:
      self._loaders = [self._open(d.corpora, inputs) for d in config.domains]

  def _open(self, found: tuple[Corpus, ...], inputs: dict[str, Any]) -> Loader:
    config = self._config
    return corpora.loader(
      config.run,
      found,
      inputs,
      rows=config.share.rows,
      length=config.rollout.length,
      shards=config.share.shards,
      seed=config.run.seed,
    )

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns ((batch, domain_B), metrics) of a step.

    Which domain it is, and whether the student writes, depends on (seed, step)
    alone.
    """
    config = self._config
    rng = np.random.default_rng([config.run.seed, step])
    weights = np.array([domain.weight for domain in config.domains])
    which = int(rng.choice(len(weights), p=weights / weights.sum()))
    share = config.share.at(step, config.loop.steps)
    seen = {"share": (share, 1.0), "domain": (float(which), 1.0)}
    objective = which
    if rng.random() < share:
      trajectory, told = self._rollouts[which].sample(state, step)
      batch = to_batch(trajectory)  # rewards are only looked at
    else:
      read = next(self._loaders[which])
      told = corpora.look(read, *self._loaders)
      batch = sharding.place(read, self._mesh)
      objective = which if config.share.loss is None else len(weights)
    domain_B = np.full(len(batch.tokens_BT), objective, np.int32)
    return (batch, sharding.place(domain_B, self._mesh)), seen | told

  def state(self) -> list[dict[str, Any]]:
    """Returns the position of each domain's corpora, as JSON."""
    return [loader.state() for loader in self._loaders]

  def restore(self, state: list[dict[str, Any]]) -> None:
    """Goes back to a position."""
    for loader, position in zip(self._loaders, state, strict=True):
      loader.restore(position)


def _objective(
  config: Config, inputs: dict[str, Any], mesh: Mesh
) -> tuple[Objective, Any]:
  """Returns the objective of all domains, and their teachers' parameters.

  Behind them comes that of written text, where it has a loss of its own.
  """
  made = lambda p: functools.partial(resolve(p.name).loss, **p.args)
  loss, found, frozen = made(config.loss), [], []
  for domain in config.domains:
    teacher, params, tokens = student.teacher(
      config, inputs, mesh, domain.teacher
    )
    found += [
      objectives.matching(
        student.decoder(config), teacher, loss, mesh, tokens=tokens
      )
    ]
    frozen += [params]
  if config.share.loss is not None:
    plain = made(config.share.loss)
    found += [objectives.imitation(student.decoder(config), plain, mesh)]
    frozen += [None]
  return objectives.by_domain(found), frozen


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns what is to be known of its adapters."""
  mesh = student.make_mesh(config)
  mixture = Mixture(config, inputs, workdir, mesh)
  objective, frozen = _objective(config, inputs, mesh)
  student.train(
    config,
    inputs,
    workdir,
    objective,
    mixture.draw,
    position=mixture,
    frozen=frozen,
  )
  return student.adapters(config)
