"""The dual process: a domain is read, and general ability distilled beside it.

A step minimises the cross-entropy of the domain's text with probability m, else
what sets the student apart from a frozen teacher on general text, so that its
expectation is m CE(domain) + (1 - m) KD(general), each a mean over its own
tokens. Clipped are the gradients of one side at a time. With the student of
before as its own teacher this is learning without forgetting (Li and Hoiem
2016, 1606.09282).
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
from experiments.settings import Plugin, Run, Stage
from research import sharding
from research.data.loader import Loader
from research.models.config import Lora
from research.training import objectives, optimizers
from research.training.step import Objective
from research.types import Sampled, TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """`domain` is read in the share `m` of the steps, `general` in the others.

  The domain is plain text under `reading`, such as research.losses.supervised;
  of general text `loss` hears the stage `teacher`'s distribution, such as
  research.losses.forward_kl. See experiments.stages.distill for other fields.
  """

  run: Run
  domain: tuple[Corpus, ...]
  general: tuple[Corpus, ...]
  m: float
  reading: Plugin
  teacher: Stage
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
  teacher_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError where one side has no text, no step or no loss."""
    alone = "for one side alone take experiments.stages.distill"
    if not (self.domain and self.general):
      raise ValueError(f"dual: domain or general has no corpora: {alone}")
    if not 0 < self.m < 1:
      raise ValueError(f"dual: m is {self.m}, and not within (0, 1): {alone}")
    if objectives.listens_to(resolve(self.reading.name).loss) is not Sampled:
      raise ValueError(
        f"dual: {self.reading.name} reads no plain text: take such as "
        "research.losses.supervised"
      )
    student.check_heard(self.loss)
    student.check(self)
    student.check_rows(self, self.rows, self.length)


class Sides:
  """What is read of the domain and of general text, each at its position."""

  def __init__(self, config: Config, inputs: dict[str, Any], mesh: Mesh):
    """Opens both."""
    self._config, self._mesh = config, mesh
    self._loaders: list[Loader] = [
      corpora.loader(
        config.run,
        found,
        inputs,
        rows=config.rows,
        length=config.length,
        shards=config.shards,
        seed=config.run.seed,
      )
      for found in (config.domain, config.general)
    ]

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns ((batch, domain_B), metrics); which side it is of depends on
    (seed, step) alone.
    """
    del state
    config = self._config
    rng = np.random.default_rng([config.run.seed, step])
    side = int(rng.random() >= config.m)
    batch = next(self._loaders[side])
    seen = {"general": (float(side), 1.0)}
    seen |= corpora.look(batch, *self._loaders)
    domain_B = np.full(len(batch.tokens_BT), side, np.int32)
    return sharding.place((batch, domain_B), self._mesh), seen

  def state(self) -> list[dict[str, Any]]:
    """Returns both positions, as JSON."""
    return [loader.state() for loader in self._loaders]

  def restore(self, state: list[dict[str, Any]]) -> None:
    """Goes back to where both stood."""
    for loader, position in zip(self._loaders, state, strict=True):
      loader.restore(position)


def _objective(
  config: Config, inputs: dict[str, Any], mesh: Mesh
) -> tuple[Objective, Any]:
  """Returns the objective of both sides, and the teacher's parameters."""
  model = student.decoder(config)
  made = lambda p: functools.partial(resolve(p.name).loss, **p.args)
  teacher, frozen, tokens = student.teacher(
    config, inputs, mesh, config.teacher
  )
  both = [
    objectives.imitation(model, made(config.reading), mesh),
    objectives.matching(model, teacher, made(config.loss), mesh, tokens=tokens),
  ]
  return objectives.by_domain(both), [None, frozen]


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns what is to be known of its adapters."""
  mesh = student.make_mesh(config)
  sides = Sides(config, inputs, mesh)
  objective, frozen = _objective(config, inputs, mesh)
  student.train(
    config,
    inputs,
    workdir,
    objective,
    sides.draw,
    position=sides,
    frozen=frozen,
  )
  return student.adapters(config)
