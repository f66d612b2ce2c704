"""Reinforcement: sample groups of answers, grade them, follow the gradient."""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import loop, student
from experiments.resolve import resolve
from experiments.rollouts import Rollout, Rollouts
from experiments.settings import Plugin, Problems, Run, Stage
from research import sharding
from research.models.config import Lora, Model
from research.training import objectives, optimizers
from research.types import TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` names the stage whose student is reinforced.

  `pool` problems are drawn once; each step takes its own of them. `algorithm`
  is a module with `advantage` and `loss`, called with `advantage` and the
  plug-in's args. `reference` is the stage of a frozen model that a KL is from.
  A step makes `epochs` passes over its rows in `minibatches` updates each; the
  ratio of a policy is to the "sampler" that wrote, or to the "trainer"'s own
  scores `before` the first update. With `lora` only adapters over `start` are
  trained, and `base_bits` may hold what is beneath them in few bits.
  """

  run: Run
  start: Stage
  problems: Problems
  pool: int
  rollout: Rollout
  algorithm: Plugin
  advantage: dict[str, Any]
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  reference: Stage | None = None
  epochs: int = 1
  minibatches: int = 1
  before: Literal["sampler", "trainer"] = "sampler"
  microbatches: int = 1
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on adapters over nothing, and steps without updates."""
    student.check(self)
    if min(self.epochs, self.minibatches) < 1:
      raise ValueError(
        f"reinforce: {self.epochs} epochs of {self.minibatches} minibatches "
        "are no update: at least 1 of each is wanted"
      )


def minibatches[T](
  inputs: T, live_B: np.ndarray, epochs: int, parts: int, seed: tuple[int, int]
) -> list[T]:
  """Returns the rows of `inputs` dealt to `parts`, shuffled anew each epoch.

  Rows that are live, and those that only fill up, are each dealt evenly; a part
  without any that is live would move the optimizer by nothing, and is left out.
  """
  rng = np.random.default_rng(seed)
  live, spare = np.flatnonzero(live_B), np.flatnonzero(~live_B)
  orders = [
    np.concatenate([rng.permutation(live), spare]) for _ in range(epochs)
  ]
  dealt = [order[i::parts] for order in orders for i in range(parts)]
  take = lambda rows: jax.tree.map(lambda x: x[np.sort(rows)], inputs)
  return [take(rows) for rows in dealt if live_B[rows].any()]


@functools.partial(
  jax.jit, static_argnames=("model", "microbatches", "temperature", "mesh")
)
def _score(
  model: Model,
  params: Any,
  trajectory: Trajectory,
  microbatches: int,
  temperature: float,
  mesh: Mesh,
) -> jax.Array:
  """Returns what a model says of a trajectory's tokens, logprobs_BT.

  As many rows are held at once as in an update that is cut so often.
  """
  say = lambda rows: (
    objectives.score(
      model, params, rows, temperature=temperature, mesh=mesh
    ).logprobs_BT
  )
  cut = lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)
  said_BT = jax.lax.map(say, jax.tree.map(cut, trajectory))
  return said_BT.swapaxes(0, 1).reshape(trajectory.tokens_BT.shape)


def _reference(
  config: Config, inputs: dict[str, Any], mesh: Mesh
) -> tuple[Any, bool]:
  """Returns the reference's parameters, and whether the loss hears them whole.

  Raises:
    ValueError: the whole distribution is asked for, and there is no reference.
  """
  full = config.algorithm.args.get("kl") == "full"
  if config.reference is None:
    if full:
      raise ValueError('kl="full" is from a reference: name its stage')
    return None, False
  return student.read_only(config, inputs, config.reference, None, mesh), full


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the policy; returns how many answers it learned from at most."""
  mesh = student.make_mesh(config)
  module = resolve(config.algorithm.name)
  rollouts = Rollouts(
    config, config.problems, config.pool, workdir, mesh, config.minibatches
  )
  reference, full = _reference(config, inputs, mesh)
  law = {"temperature": config.rollout.temperature, "mesh": mesh}
  policy, cuts = (
    student.decoder(config),
    config.minibatches * config.microbatches,
  )
  advantage = jax.jit(functools.partial(module.advantage, **config.advantage))
  updates = config.epochs * config.minibatches

  def told(state: TrainState, trajectory: Trajectory) -> Trajectory:
    """The trajectory with what other models say of it."""
    if config.before == "trainer":
      params = student.params(config, state)
      own_BT = _score(policy, params, trajectory, cuts, **law)
      trajectory = dataclasses.replace(trajectory, old_logprobs_BT=own_BT)
    if reference is not None:
      ref_BT = _score(config.run.model, reference, trajectory, cuts, **law)
      trajectory = dataclasses.replace(trajectory, ref_logprobs_BT=ref_BT)
    return trajectory

  def draw(state: TrainState, step: int) -> tuple[Any, dict]:
    trajectory, seen = rollouts.sample(state, step)
    trajectory = told(state, trajectory)
    both = trajectory, advantage(trajectory)
    if updates == 1:
      return both, seen
    seed = (config.run.seed, step)
    live_B = np.asarray(trajectory.mask_BT).any(axis=1)
    parts = minibatches(both, live_B, config.epochs, config.minibatches, seed)
    return [sharding.place(part, mesh) for part in parts], seen

  objective = objectives.policy_gradient(
    policy,
    functools.partial(module.loss, **config.algorithm.args),
    **law,
    reference=config.run.model if full else None,
  )
  student.train(
    config,
    inputs,
    workdir,
    objective,
    draw,
    frozen=reference if full else None,
    updates=updates,
  )
  cfg = config.rollout
  answers = config.loop.steps * cfg.problems * cfg.group
  return {"answers": answers, **student.adapters(config)}
