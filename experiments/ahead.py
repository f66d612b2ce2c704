"""One step off the policy: sampling and grading while the step before trains.

The answers of step i are of the policy before step i - 1 was taken, which a
state holds as `extra["sampler"]`: a run that goes on draws what it had drawn.
Three copies of the trained parameters are held at once.
"""

import atexit
import concurrent.futures
import dataclasses
import functools
import sys
import threading
import traceback
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


class _Running[T]:
  """What a thread of its own makes; if it hangs, the process still ends."""

  def __init__(self, make: Callable[[], T], what: str):
    self._made: concurrent.futures.Future[T] = concurrent.futures.Future()
    self._what = what
    self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
    self._thread.start()

  def _run(self, make: Callable[[], T]) -> None:
    try:
      self._made.set_result(make())
    except BaseException as error:  # it is raised where the result is asked for
      self._made.set_exception(error)

  def result(self, patience: float) -> T:
    """Returns what was made, or raises what it raised.

    Raises:
      TimeoutError: nothing came for so many seconds; it says where it stands.
        A process that ends while a thread is stuck within XLA ends by SIGABRT.
    """
    concurrent.futures.wait([self._made], patience)
    frame = sys._current_frames().get(self._thread.ident or 0)
    if self._made.done():
      return self._made.result()
    stands = "".join(traceback.format_stack(frame))
    raise TimeoutError(
      f"{self._what} did not come within {patience:g} s. It stands at\n{stands}"
    )

  def end(self, patience: float) -> None:
    """Waits for the thread, which may be within XLA, where a process ends."""
    self._thread.join(patience)


def _awaited[T](ahead: dict[int, _Running[T]], step: int, patience: float) -> T:
  """Returns a step's samples; only an interrupt leaves their thread there."""
  try:
    found = ahead[step].result(patience)
  except Exception:
    del ahead[step]
    raise
  del ahead[step]
  return found


def drawing[T](
  sample: Callable[[TrainState, int], T], steps: int, patience: float
) -> Callable[[TrainState, int], tuple[T, Any]]:
  """Returns `draw`, which gives a step's samples and who samples the next ones.

  The first step's are on the policy. What fails while it runs ahead is raised
  by the step that wants it, and so is a wait of more than `patience` seconds.
  """
  ahead: dict[int, _Running[T]] = {}
  atexit.register(lambda: [one.end(patience) for one in ahead.values()])

  def draw(state: TrainState, step: int) -> tuple[T, Any]:
    if step in ahead:
      found = _awaited(ahead, step, patience)
    else:
      before = sampler(state, state.extra["sampler"], max(step - 1, 0))
      found = sample(before, step)
    now = copied(state.params)
    if step + 1 < steps:
      later = functools.partial(sample, sampler(state, now, step), step + 1)
      ahead[step + 1] = _Running(later, f"the samples of step {step + 1}")
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
