"""Distillation on written text: a Batch at a time, any loss on hard targets."""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from experiments import corpora, loop, settings, student
from experiments.corpora import Corpus
from experiments.resolve import resolve
from experiments.settings import Plugin, Run, Stage
from research import sharding
from research.data import align, signals
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
  `signals` one that recorded what a teacher said, for losses on candidates. A
  teacher of `other_tokens` is a checkpoint that reads the conversations by its
  own tokenizer and template, for losses across vocabularies.
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
  other_tokens: bool = False

  def __post_init__(self):
    """Raises ValueError on a step that cannot be cut as asked."""
    if not self.corpora:
      raise ValueError("distill: corpora is empty: nothing to learn from")
    student.check_rows(self, self.rows, self.length)
    if self.teacher is None and self.teacher_bits is not None:
      raise ValueError("distill: there are teacher_bits and no teacher")
    if self.teacher is not None and self.signals is not None:
      raise ValueError("distill: give a teacher or its signals, not both")
    self._check_tokens()
    student.check(self)

  def _check_tokens(self) -> None:
    if not self.other_tokens:
      return
    if self.teacher is None:
      raise ValueError("distill: there is no teacher that has other_tokens")
    if not getattr(resolve(self.loss.name), "ACROSS", False):
      raise ValueError(
        f"distill: {self.loss.name} compares token by token, and the teacher "
        "has other_tokens: take research.losses.aligned_spans or universal"
      )


def _draw(
  loader: Loader,
  beside: signals.Cache | align.Beside | None,
  mesh: Mesh,
  state: TrainState,
  step: int,
) -> tuple[Any, dict]:
  """Returns the next batch, with what a teacher is asked or said of it."""
  del state, step
  batch = next(loader)
  said = None
  if beside is not None:
    tokens_BT, ids_BT = map(np.asarray, (batch.tokens_BT, batch.segments_BT))
    said = beside.along(tokens_BT, ids_BT)
  told = batch if said is None else (batch, said)
  return sharding.place(told, mesh), corpora.look(batch, loader)


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
  told = config, inputs, mesh, config.teacher
  if config.other_tokens:
    teacher, frozen = student.foreign(*told)
    return objectives.translating(model, teacher, loss, mesh), frozen
  teacher, frozen, tokens = student.teacher(*told)
  if objectives.listens_to(loss) is Features:
    return objectives.resembling(model, teacher, loss, mesh), frozen
  objective = objectives.matching(model, teacher, loss, mesh, tokens=tokens)
  return objective, frozen


def _beside(
  config: Config, inputs: dict[str, Any]
) -> signals.Cache | align.Beside | None:
  """Returns what tells, of each batch, more than its tokens."""
  if config.signals is not None:
    done = student.outputs(inputs, config.signals)
    return signals.Cache(pathlib.Path(done["folder"]) / "signals")
  if not config.other_tokens:
    return None
  return align.Beside(
    settings.load_tokenizer(config.run),
    student.their_tokenizer(inputs, str(config.teacher)),
    corpora.conversations(config.corpora, inputs),
  )


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns how many tokens its rows had room for."""
  mesh, beside = student.make_mesh(config), _beside(config, inputs)
  objective, frozen = _objective(config, inputs, mesh)
  loader = corpora.loader(
    config.run,
    config.corpora,
    inputs,
    rows=config.rows,
    length=config.length,
    shards=config.shards,
    seed=config.run.seed,
  )
  draw = functools.partial(_draw, loader, beside, mesh)
  student.train(
    config, inputs, workdir, objective, draw, position=loader, frozen=frozen
  )
  capacity = config.loop.steps * config.rows * config.length
  return {"capacity": capacity, **student.adapters(config)}
