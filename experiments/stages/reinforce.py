"""Reinforcement: sample groups of answers, grade them, follow the gradient."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from experiments import loop, pools, settings
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run
from experiments.stages import distill
from research import sharding
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.training import metrics, objectives, optimizers
from research.training import step as steps
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Rollout:
  """How a step's answers are sampled: `group` to each of `problems`.

  `rows` answers are sampled at a time, of at most `new_tokens` tokens, and
  packed into rows of `length`.
  """

  problems: int
  group: int
  new_tokens: int
  length: int
  rows: int
  temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` names the stage whose student is reinforced.

  `pool` problems are drawn once; each step takes its own of them. `algorithm`
  is a module with `advantage` and `loss`, called with `advantage` and the
  plug-in's args.
  """

  run: Run
  start: str
  problems: Problems
  pool: int
  rollout: Rollout
  algorithm: Plugin
  advantage: dict[str, Any]
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1


class Rollouts:
  """Graded samples of the current policy, as a source of the loop."""

  def __init__(self, config: Config, workdir: pathlib.Path, mesh: Any):
    """Draws the pool of problems."""
    self._config, self._workdir, self._mesh = config, workdir, mesh
    self._tokenizer = settings.load_tokenizer(config.run)
    self._task = resolve(config.problems.task)
    self._pool = pools.pool(config.problems, config.pool, config.run.seed)
    module = resolve(config.algorithm.name)
    self._advantage = jax.jit(
      functools.partial(module.advantage, **config.advantage)
    )

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns (trajectory, advantage_BT) and what the samples say."""
    cfg = self._config.rollout
    seed = self._config.run.seed
    problems = pools.of_step(self._pool, seed, step, cfg.problems)
    completions, records = rollout.collect(
      self._config.run.model,
      state.params,
      self._tokenizer,
      self._task,
      problems,
      jax.random.fold_in(state.key, step),
      group=cfg.group,
      sampling=Sampling(cfg.temperature),
      new_tokens=cfg.new_tokens,
      rows=cfg.rows,
      mesh=self._mesh,
    )
    rows = [{"step": step, **record} for record in records]
    metrics.write_rollouts(self._workdir, step, rows)
    trajectory = rollout.to_trajectory(
      self._tokenizer,
      problems,
      completions,
      records,
      length=cfg.length,
      step=self._multiple(),
      version=step,
    )
    trajectory = sharding.place(trajectory, self._mesh)
    advantage_BT = self._advantage(trajectory)
    return (trajectory, advantage_BT), rollout.summarise(records)

  def _multiple(self) -> int:
    """Rows come in eighths of the most there can be, split over all devices."""
    cfg, mesh = self._config.rollout, self._mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    least = int(np.lcm(ways * self._config.microbatches, 1))
    eighth = -(-cfg.problems * cfg.group // 8)
    return -(-eighth // least) * least

  def state(self) -> Any:
    """Returns None: a step's problems depend on the seed and the step."""

  def restore(self, state: Any) -> None:
    """Has nothing to go back to."""


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the policy; returns how many answers it gave."""
  model = config.run.model
  mesh = sharding.make_mesh(**dataclasses.asdict(config.run.mesh))
  module = resolve(config.algorithm.name)
  optimizer = optimizers.make(config.optimizer)
  fresh, abstract = distill.first_state(config, inputs, optimizer, mesh)
  objective = objectives.policy_gradient(
    model,
    functools.partial(module.loss, **config.algorithm.args),
    temperature=config.rollout.temperature,
    mesh=mesh,
  )
  loop.fit(
    config.loop,
    workdir,
    fresh,
    abstract,
    steps.compiled(
      objective,
      optimizer,
      clip=config.optimizer.clip,
      microbatches=config.microbatches,
    ),
    Rollouts(config, workdir, mesh),
  )
  cfg = config.rollout
  return {"answers": config.loop.steps * cfg.problems * cfg.group}
