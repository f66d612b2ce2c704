"""Distillation on written text: a Batch at a time, any loss on hard targets."""

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
from research.data import signals
from research.data.loader import Loader
from research.models.config import Lora
from research.training import objectives, optimizers
from research.training.step import Objective
from research.types import Features, TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """A step is `rows` rows of `length` tokens, read from `shards` shards.

  `start` names a stage to begin from instead of fresh parameters; `teacher`
  one whose model speaks beside the student, for losses on its distribution;
  `signals` one that recorded what a teacher said, for losses on candidates.
  With `lora` only adapters over `start` are trained. What is frozen may be held
  in few bits: `base_bits` beneath the adapters, `teacher_bits` the teacher.
  """

  run: Run
  corpora: tuple[Corpus, ...]
  loss: Plugin
  rows: int
  length: int
  shards: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1
  start: Stage | None = None
  teacher: Stage | None = None
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None
  teacher_bits: Literal[4, 8] | None = None
  signals: Stage | None = None

  def __post_init__(self):
    """Raises ValueError on a step that cannot be cut as asked."""
    if not self.corpora:
      raise ValueError("distill: corpora is empty: nothing to learn from")
    student.check_rows(self, self.rows, self.length)
    if self.teacher is None and self.teacher_bits is not None:
      raise ValueError("distill: there are teacher_bits and no teacher")
    if self.teacher is not None and self.signals is not None:
      raise ValueError("distill: give a teacher or its signals, not both")
    student.check(self)


def _draw(
  loader: Loader,
  cache: signals.Cache | None,
  mesh: Mesh,
  state: TrainState,
  step: int,
) -> tuple[Any, dict]:
  """Returns the next batch, with what a teacher recorded of it."""
  del state, step
  batch = next(loader)
  said = None
  if cache is not None:
    tokens_BT, ids_BT = map(np.asarray, (batch.tokens_BT, batch.segments_BT))
    said = cache.along(tokens_BT, ids_BT)
  told = batch if said is None else (batch, said)
  return sharding.place(told, mesh), corpora.look(loader, batch)


def _objective(
  config: Config, inputs: dict[str, Any], mesh: Mesh
) -> tuple[Objective, Any]:
  """Returns the objective, and what is frozen beside the student."""
  model = student.decoder(config)
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  if config.signals is not None:
    return objectives.recorded(model, loss, mesh), None
  if config.teacher is None:
    return objectives.imitation(model, loss, mesh), None
  teacher, frozen, tokens = student.teacher(
    config, inputs, mesh, config.teacher
  )
  if objectives.listens_to(loss) is Features:
    return objectives.resembling(model, teacher, loss, mesh), frozen
  objective = objectives.matching(model, teacher, loss, mesh, tokens=tokens)
  return objective, frozen


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns how many tokens its rows had room for."""
  mesh, cache = student.make_mesh(config), None
  objective, frozen = _objective(config, inputs, mesh)
  if config.signals is not None:
    done = student.outputs(inputs, config.signals)
    cache = signals.Cache(pathlib.Path(done["folder"]) / "signals")
  loader = corpora.loader(
    config.run,
    config.corpora,
    inputs,
    rows=config.rows,
    length=config.length,
    shards=config.shards,
    seed=config.run.seed,
  )
  draw = functools.partial(_draw, loader, cache, mesh)
  student.train(
    config, inputs, workdir, objective, draw, position=loader, frozen=frozen
  )
  capacity = config.loop.steps * config.rows * config.length
  return {"capacity": capacity, **student.adapters(config)}
