"""On-policy distillation: the student writes, the teacher judges each token."""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

from experiments import loop, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from experiments.stages.reinforce import Rollout, Rollouts
from research.models.config import Lora
from research.training import objectives, optimizers
from research.types import Batch, TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` is the student's stage, `teacher` that of the frozen teacher.

  `loss` compares whole distributions, such as research.losses.reverse_kl. With
  `lora` only adapters over `start` are trained; what is frozen may be held in
  few bits, as in experiments.stages.distill.
  """

  run: Run
  start: Stage | None
  teacher: Stage
  problems: Problems
  pool: int
  rollout: Rollout
  loss: Plugin
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None
  teacher_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on adapters over nothing."""
    student.check(self)


def to_batch(trajectory: Trajectory) -> Batch:
  """Returns the sampled rows as text to learn on: the policy's tokens count."""
  return Batch(
    trajectory.tokens_BT,
    trajectory.mask_BT,
    trajectory.positions_BT,
    trajectory.segments_BT,
  )


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student on what it wrote; returns how many answers that was."""
  mesh = student.make_mesh(config)
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  rollouts = Rollouts(config, workdir, mesh)

  def draw(state: TrainState, step: int) -> tuple[Batch, dict]:
    trajectory, seen = rollouts.sample(state, step)
    return to_batch(trajectory), seen  # rewards are only looked at

  teacher, frozen, tokens = student.teacher(config, inputs, mesh)
  objective = objectives.matching(
    student.decoder(config), teacher, loss, mesh, tokens=tokens
  )
  student.train(config, inputs, workdir, objective, draw, frozen=frozen)
  cfg = config.rollout
  answers = config.loop.steps * cfg.problems * cfg.group
  return {"answers": answers, **student.adapters(config)}
