"""Sampling runs while the step before trains, and what fails there is told."""

import signal
import subprocess
import sys
import threading
import time

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

  draw = ahead.drawing(sample, 2, SOON)
  assert draw(state(), 0)[0] == 0
  training.set()  # step 0 begins to train: its draw did not wait for step 1's
  assert sampled.wait(SOON)  # and this is before anyone asks for step 1's
  assert draw(state(), 1)[0] == 1


def test_what_fails_ahead_is_raised_by_the_step_that_wants_it():
  def sample(state, step):
    if step == 1:
      raise ValueError("no answer of step 1")
    return step

  draw = ahead.drawing(sample, 3, SOON)
  assert draw(state(), 0)[0] == 0
  with pytest.raises(ValueError, match="no answer of step 1"):
    draw(state(), 1)


def test_samples_that_never_come_end_the_run_and_say_where_they_are():
  released = threading.Event()

  def endless(step):
    released.wait(SOON)
    return step

  draw = ahead.drawing(lambda _, step: step and endless(step), 3, patience=0.5)
  assert draw(state(), 0)[0] == 0
  began = time.monotonic()
  with pytest.raises(TimeoutError, match=r"samples of step 1 did .*\n") as told:
    draw(state(), 1)
  assert time.monotonic() - began < 2
  assert "in endless" in str(told.value)
  released.set()


HANGS = """
import threading
from experiments import ahead
from tests.experiments.test_ahead import state
draw = ahead.drawing(lambda _, i: i and threading.Event().wait(), 3, 0.5)
draw(state(), 0)
draw(state(), 1)
"""


def test_a_thread_that_hangs_does_not_keep_the_process():
  done = subprocess.run(
    [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=SOON
  )
  assert done.returncode == 1
  assert "the samples of step 1 did not come within 0.5 s" in done.stderr


BUSY = """
import threading, time
import jax
from experiments import ahead
from tests.experiments.test_ahead import state
sampling = threading.Event()
turns = jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, x: x + i % 7, 0))
turns(1).block_until_ready()
began = time.monotonic()
turns(10_000_000).block_until_ready()
count = int(10_000_000 * 2 / (time.monotonic() - began))  # of two seconds
def sample(_, step):
  if step:
    sampling.set()
    turns(count).block_until_ready()
    print("sampled")
draw = ahead.drawing(sample, 3, 60)
draw(state(), 0)
sampling.wait()
"""
ENDS = {
  "a step that fails": ("raise SystemExit(3)", 3),
  "an interrupt of who waits": (
    "import os, signal\n"
    "interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
    "threading.Timer(0.3, interrupt).start()\n"
    "draw(state(), 1)",
    -signal.SIGINT,
  ),
}


@pytest.mark.parametrize("end, code", ENDS.values(), ids=ENDS)
def test_a_process_that_ends_waits_for_a_thread_within_xla(end, code):
  """Or else XLA, whose thread is torn away, ends it by SIGABRT."""
  done = subprocess.run(
    [sys.executable, "-c", BUSY + end],
    capture_output=True,
    text=True,
    timeout=2 * SOON,
  )
  assert "sampled" in done.stdout
  assert done.returncode == code, done.stderr
