"""Sampling runs while the step before trains, and what fails there is told."""

import threading

import jax
import jax.numpy as jnp
import pytest

from experiments import ahead
from research.types import TrainState

SOON = 30.0  # seconds, never waited for where the two overlap


def state():
  params = {"x": jnp.ones(2)}
  extra = {"sampler": params}
  return TrainState(0, params, None, jax.random.key(0), extra=extra)


def test_sampling_and_training_overlap():
  """Samples of step 1 are drawn only once step 0 trains, and while it does."""
  training, sampled = threading.Event(), threading.Event()

  def sample(state, step):
    if step == 1:
      assert training.wait(SOON)
      sampled.set()
    return step

  draw = ahead.drawing(sample, steps=2)
  assert draw(state(), 0)[0] == 0
  training.set()  # step 0 begins to train: its draw did not wait for step 1's
  assert sampled.wait(SOON)  # and this is before anyone asks for step 1's
  assert draw(state(), 1)[0] == 1


def test_what_fails_ahead_is_raised_by_the_step_that_wants_it():
  def sample(state, step):
    if step == 1:
      raise ValueError("no answer of step 1")
    return step

  draw = ahead.drawing(sample, steps=3)
  assert draw(state(), 0)[0] == 0
  with pytest.raises(ValueError, match="no answer of step 1"):
    draw(state(), 1)
