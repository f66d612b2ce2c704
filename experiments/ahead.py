"""One step off the policy: sampling and grading while the step before trains.

The answers of step i are of the policy before step i - 1 was taken, which a
state holds as `extra["sampler"]`: a run that goes on draws what it had drawn.
Three copies of the trained parameters are held at once.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research.training.step import Step
from research.types import TrainState


def copied[T](tree: T) -> T:
  """Returns arrays of their own: a step donates those of its state."""
  return jax.tree.map(jnp.copy, tree)


def sampler(state: TrainState, params: Any, step: int) -> TrainState:
  """Returns what samples of `state`, which may be donated meanwhile."""
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params=params,
    opt_state=None,
    key=copied(state.key),
    frozen=state.frozen,
  )


def drawing[T](
  sample: Callable[[TrainState, int], T], steps: int
) -> Callable[[TrainState, int], tuple[T, Any]]:
  """Returns `draw`, which gives a step's samples and who samples the next ones.

  The first step's are on the policy. What fails while it runs ahead is raised
  by the step that wants it.
  """
  thread = concurrent.futures.ThreadPoolExecutor(1, "rollout")
  ahead: dict[int, concurrent.futures.Future[T]] = {}

  def draw(state: TrainState, step: int) -> tuple[T, Any]:
    if step in ahead:
      found = ahead.pop(step).result()
    else:
      before = sampler(state, state.extra["sampler"], max(step - 1, 0))
      found = sample(before, step)
    now = copied(state.params)
    if step + 1 < steps:
      state = sampler(state, now, step)
      ahead[step + 1] = thread.submit(sample, state, step + 1)
    return found, now

  return draw


def keeping(step: Step) -> Step:
  """Returns a step over (inputs, the next samples' policy), which is kept."""

  def whole(state: TrainState, both: Any) -> tuple[TrainState, dict]:
    inputs, params = both
    state, told = step(state, inputs)
    extra = state.extra | {"sampler": params}
    return dataclasses.replace(state, extra=extra), told

  return whole
