"""On-policy distillation: the student writes, the teacher judges each token."""

import dataclasses
import functools
import pathlib
from typing import Any

from experiments import loop, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from experiments.stages.reinforce import Rollout, Rollouts
from research.training import objectives, optimizers
from research.types import Batch, TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` is the student's stage, `teacher` that of the frozen teacher.

  `loss` compares whole distributions, such as research.losses.reverse_kl.
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
  model, mesh = config.run.model, student.make_mesh(config)
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  rollouts = Rollouts(config, workdir, mesh)

  def draw(state: TrainState, step: int) -> tuple[Batch, dict]:
    trajectory, seen = rollouts.sample(state, step)
    return to_batch(trajectory), seen  # rewards are only looked at

  objective = objectives.matching(model, model, loss, mesh)
  teacher = student.load(config, inputs, config.teacher, mesh)
  student.train(config, inputs, workdir, objective, draw, frozen=teacher)
  cfg = config.rollout
  return {"answers": config.loop.steps * cfg.problems * cfg.group}
