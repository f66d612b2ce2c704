"""The one train step: pretraining, distillation and policy gradient alike."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.training.metrics import merge
from research.types import TrainState

# (state, inputs) -> (the next state, metrics)
Step = Callable[[TrainState, Any], tuple[TrainState, dict]]
# (params, frozen, inputs) -> (sum, denominator, metrics)
Objective = Callable[[Any, Any, Any], tuple[jax.Array, jax.Array, dict]]


def new_state(
  params: Any,
  optimizer: optax.GradientTransformation,
  key: jax.Array,
  *,
  frozen: Any = None,
) -> TrainState:
  """Returns the state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=key,
    frozen=frozen,
  )


def accumulate(
  objective: Objective,
  params: Any,
  frozen: Any,
  inputs: Any,
  microbatches: int,
) -> tuple[Any, jax.Array, jax.Array, dict]:
  """Returns (gradients, sum, denominator, metrics), all summed over B.

  Nothing is divided here: sums of sums are the same however rows are split. The
  leading axis of every input is B and `microbatches` divides it. Metrics join
  as `metrics.add` says.
  """

  def one(inputs):
    def total(params):
      value, denominator, metrics = objective(params, frozen, inputs)
      return value, (denominator, metrics)

    (value, (denominator, metrics)), grads = jax.value_and_grad(
      total, has_aux=True
    )(params)
    wide = lambda x: x.astype(jnp.promote_types(jnp.float32, x.dtype))
    return jax.tree.map(wide, (grads, value, denominator, metrics))

  if microbatches == 1:
    return one(inputs)
  # Rows that lie side by side on a device stay there: split B last.
  cut = lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)
  inputs = jax.tree.map(cut, inputs)
  shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], inputs))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def add(sums, xs):
    *known, metrics = one(xs)
    *held, told = sums
    return (*jax.tree.map(jnp.add, held, known), merge(told, metrics)), None

  return jax.lax.scan(add, zeros, inputs)[0]


def update(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  state: TrainState,
  inputs: Any,
  *,
  clip: float,
  microbatches: int = 1,
) -> tuple[TrainState, dict]:
  """Returns the next state and its metrics, pairs of (sum, denominator).

  The gradient is divided once, by the denominator of all microbatches and
  devices, then clipped to a global norm. Where loss, gradient or update is not
  finite nothing but `step` moves and `nonfinite` is 1: the host decides.
  """
  grads, value, denominator, metrics = accumulate(
    objective, state.params, state.frozen, inputs, microbatches
  )
  grads, norm = _divided(grads, denominator, clip)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  sizes = jnp.stack([value, norm, optax.tree.norm(updates)])
  finite = jnp.isfinite(sizes).all()
  params = optax.apply_updates(state.params, updates)
  keep = lambda new, old: jnp.where(finite, new, old)
  metrics = metrics | {
    "loss": (value, denominator),
    "gradient_norm": (norm, jnp.ones(())),
    "nonfinite": (1.0 - finite, jnp.ones(())),
  }
  new = dataclasses.replace(
    state,
    step=state.step + 1,
    params=jax.tree.map(keep, params, state.params),
    opt_state=jax.tree.map(keep, opt_state, state.opt_state),
  )
  return new, metrics


def _divided(
  grads: Any, denominator: jax.Array, clip: float
) -> tuple[Any, jax.Array]:
  """Returns the clipped mean gradient, and the norm that it had before."""
  divisor = jnp.where(denominator == 0, 1, denominator)
  norm = optax.tree.norm(grads) / divisor
  scale = jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-12)) / divisor
  return jax.tree.map(lambda g: g * scale, grads), norm


def several(
  step: Step,
) -> Callable[[TrainState, Sequence[Any]], tuple[TrainState, dict]]:
  """Returns a step over a list of inputs: an update each, counted as one step.

  Means are over all updates; `metrics.merge` says what becomes of extremes.
  """

  def whole(state, many):
    number, told = state.step + 1, {}
    for inputs in many:
      state, metrics = step(state, inputs)
      told = merge(told, metrics)
    return dataclasses.replace(state, step=number), told

  return whole


def jitted(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  clip: float,
  microbatches: int = 1,
) -> Any:
  """Returns `f(state, frozen, inputs)`, jitted, which donates the state alone.

  The state goes in and comes out without what is frozen, whose arrays other
  states may share: a teacher's, the base of several adapters.
  """

  def apart(state, frozen, inputs):
    state = dataclasses.replace(state, frozen=frozen)
    state, metrics = update(
      objective,
      optimizer,
      state,
      inputs,
      clip=clip,
      microbatches=microbatches,
    )
    return dataclasses.replace(state, frozen=None), metrics

  return jax.jit(apart, donate_argnums=0)


def compiled(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  clip: float,
  microbatches: int = 1,
) -> Step:
  """Returns `step(state, inputs)`, jitted; see `jitted` for what is donated."""
  f = jitted(objective, optimizer, clip=clip, microbatches=microbatches)

  def step(state, inputs):
    frozen = state.frozen
    state, metrics = f(dataclasses.replace(state, frozen=None), frozen, inputs)
    return dataclasses.replace(state, frozen=frozen), metrics

  return step
