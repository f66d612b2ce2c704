"""On-policy distillation: the student writes, the teacher judges each token."""

import dataclasses
import functools
import pathlib
from typing import Any

from experiments import loop
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from experiments.stages.distill import checkpoints, first_state
from experiments.stages.reinforce import Rollout, Rollouts
from research import sharding
from research.training import objectives, optimizers
from research.training import step as steps
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


class Judged:
  """Rollouts of the student as batches; rewards are only looked at."""

  def __init__(self, rollouts: Rollouts):
    """Wraps a source of trajectories."""
    self._rollouts = rollouts

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns the batch that the student just wrote."""
    trajectory, seen = self._rollouts.sample(state, step)
    return to_batch(trajectory), seen

  def state(self) -> Any:
    """Returns None: a step's problems depend on the seed and the step."""

  def restore(self, state: Any) -> None:
    """Has nothing to go back to."""


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student on what it wrote; returns how many answers that was."""
  model = config.run.model
  mesh = sharding.make_mesh(**dataclasses.asdict(config.run.mesh))
  optimizer = optimizers.make(config.optimizer)
  fresh, abstract = first_state(config, inputs, optimizer, mesh, workdir.name)
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  loop.fit(
    config.loop,
    workdir,
    fresh,
    abstract,
    steps.compiled(
      objectives.matching(model, model, loss, mesh),
      optimizer,
      clip=config.optimizer.clip,
      microbatches=config.microbatches,
    ),
    Judged(Rollouts(config, workdir, mesh)),
    frozen=loop.load_params(checkpoints(inputs, config.teacher), model, mesh),
    config=dataclasses.asdict(config),
  )
  cfg = config.rollout
  return {"answers": config.loop.steps * cfg.problems * cfg.group}
