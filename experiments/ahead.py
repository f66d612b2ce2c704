"""One step off the policy: sampling and grading while the step before trains.

The answers of step i are of the policy before step i - 1 was taken, which a
state holds as `extra["sampler"]`: a run that goes on draws what it had drawn.
Three copies of the trained parameters are held at once.
"""

import atexit
import dataclasses
import functools
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

from research import daemon
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


# The samples of steps to come, and who is at them.
Ahead = dict[int, tuple[futures.Future, threading.Thread]]


def _awaited(ahead: Ahead, step: int, patience: float) -> Any:
  """Returns a step's samples, or raises what was raised in their place.

  Raises:
    TimeoutError: nothing came for so many seconds; it says where it stands. A
      process that ends while a thread is stuck within XLA ends by SIGABRT.
  """
  made, thread = ahead[step]
  futures.wait([made], patience)  # an interrupt of it leaves them to the exit
  del ahead[step]
  frame = sys._current_frames().get(thread.ident or 0)
  if made.done():
    return made.result()
  stands = "".join(traceback.format_stack(frame))
  raise TimeoutError(
    f"the samples of step {step} did not come within {patience:g} s. Their "
    f"thread stands at\n{stands}"
  )


def drawing[T](
  sample: Callable[[TrainState, int], T], steps: int, patience: float
) -> Callable[[TrainState, int], tuple[T, Any]]:
  """Returns `draw`, which gives a step's samples and who samples the next ones.

  The first step's are on the policy. What fails while it runs ahead is raised
  by the step that wants it, and so is a wait of more than `patience` seconds.
  """
  ahead: Ahead = {}
  # A thread may be within XLA where the process ends.
  atexit.register(lambda: [at.join(patience) for _, at in ahead.values()])

  def draw(state: TrainState, step: int) -> tuple[T, Any]:
    if step in ahead:
      found = _awaited(ahead, step, patience)
    else:
      before = sampler(state, state.extra["sampler"], max(step - 1, 0))
      found = sample(before, step)
    now = copied(state.params)
    if step + 1 < steps:
      later = functools.partial(sample, sampler(state, now, step), step + 1)
      ahead[step + 1] = daemon.begin(later)
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
