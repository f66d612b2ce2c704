"""Models that learn beside a policy, each from where the policy began.

A critic says what an answer is worth so far (PPO), an implicit reward model
what its tokens are (PRIME). Each is a TrainState in the policy's `extra`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from experiments import student
from research import reference_kl, scoring
from research.algorithms import ppo
from research.models.config import Model
from research.reward_models import implicit
from research.training import metrics, objectives, optimizers
from research.training import step as steps
from research.types import TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Beside:
  """How a second model learns: by its optimizer, and its loss's arguments."""

  optimizer: optimizers.Optimizer
  args: dict[str, Any] = dataclasses.field(default_factory=dict)


class Companion(NamedTuple):
  """A second model: its first state, what it adds to a rollout, its step."""

  begin: Callable[[Any], TrainState]  # of the policy's own parameters
  tell: Callable[[Any, Trajectory], Trajectory]  # by its parameters
  step: steps.Step  # over (trajectory, advantage_BT)


def companions(config: Any, mesh: Mesh) -> dict[str, Companion]:
  """Returns the models that a stage of reinforcement asks for, by name."""
  makers = {"critic": _critic, "process": _process}
  asked = {"critic": config.critic, "process": config.process}
  return {
    name: makers[name](config, how, mesh)
    for name, how in asked.items()
    if how is not None
  }


def together(step: steps.Step, others: Mapping[str, Companion]) -> steps.Step:
  """Returns an update of the policy and of all beside it, on one rollout.

  Their metrics have their name before them; what is not finite stops the run,
  whichever model it is of.
  """

  def whole(state: TrainState, inputs: Any) -> tuple[TrainState, dict]:
    held, parts = dict(state.extra), []
    for name, other in others.items():
      held[name], told = other.step(held[name], inputs)
      named = lambda n, name=name: n if n == "nonfinite" else f"{name}_{n}"
      parts.append({named(n): pair for n, pair in told.items()})
    state, told = step(dataclasses.replace(state, extra=None), inputs)
    state = dataclasses.replace(state, extra=held)
    return state, metrics.merge(told, *parts)

  return whole


def scorer(
  config: Any, model: Model, mesh: Mesh
) -> Callable[[Any, Trajectory], jax.Array]:
  """Returns (params, trajectory) -> logprobs_BT of what was said.

  The rows are read in as many parts as a step has.
  """

  def say(params: Any, rows: Trajectory) -> jax.Array:
    said = objectives.score(model, params, rows, mesh=mesh, **_law(config))
    return said.logprobs_BT

  return jax.jit(functools.partial(_in_parts, say, _parts(config)))


def _law(config: Any) -> dict[str, Any]:
  """How a rollout is read: as it was sampled, so many tokens at a time."""
  return {"temperature": config.rollout.temperature, "block": config.block}


def _in_parts(
  say: Callable[[Any, Trajectory], jax.Array],
  parts: int,
  params: Any,
  trajectory: Trajectory,
) -> jax.Array:
  cut = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
  rows = jax.tree.map(cut, trajectory)
  said_BT = jax.lax.map(functools.partial(say, params), rows)
  return said_BT.swapaxes(0, 1).reshape(trajectory.tokens_BT.shape)


def _parts(config: Any) -> int:
  return config.minibatches * config.microbatches


def _critic(config: Any, how: Beside, mesh: Mesh) -> Companion:
  model = student.decoder(config)
  loss = functools.partial(ppo.value_loss, **how.args)
  objective = objectives.critic(model, loss, mesh)
  optimizer, step = student.compiled(
    config, how.optimizer, objective, config.updates
  )

  def begin(params: Any) -> TrainState:
    values = scoring.init(model, params)
    return steps.new_state(values, optimizer, jax.random.key(0))

  say = lambda params, rows: scoring.apply(model, params, rows, mesh)
  value = jax.jit(functools.partial(_in_parts, say, _parts(config)))

  def tell(params: Any, trajectory: Trajectory) -> Trajectory:
    values_BT = value(params, trajectory)
    return dataclasses.replace(trajectory, values_BT=values_BT)

  return Companion(begin, tell, step)


def _process(config: Any, how: Beside, mesh: Mesh) -> Companion:
  model = student.decoder(config)
  loss = functools.partial(implicit.loss, **how.args)
  learn = objectives.implicit_reward(model, loss, mesh=mesh, **_law(config))
  objective = lambda params, frozen, inputs: learn(params, frozen, inputs[0])
  optimizer, step = student.compiled(
    config, how.optimizer, objective, config.updates
  )
  score = scorer(config, model, mesh)

  def begin(params: Any) -> TrainState:
    return steps.new_state(params, optimizer, jax.random.key(0))

  def tell(params: Any, trajectory: Trajectory) -> Trajectory:
    process_BT = implicit.reward(
      score(params, trajectory), reference_kl.needed(trajectory), **how.args
    )
    return dataclasses.replace(trajectory, process_BT=process_BT)

  return Companion(begin, tell, step)
