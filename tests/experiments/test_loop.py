"""The loop around a step that only counts: what is saved, said and resumed."""

import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import pytest

from experiments import loop
from research import sharding
from research.models import presets, transformer
from research.training import checkpoint
from research.types import TrainState


def begin():
  zero = jnp.zeros((), jnp.int32)
  return TrainState(zero, {"w": jnp.zeros(3)}, (), jax.random.key(0))


class Numbers:
  """Draws 0, 1, 2, ... and knows where it is."""

  def __init__(self):
    self.next, self.asked = 0, []

  def draw(self, state, step):
    self.asked.append((step, int(state.step)))
    self.next += 1
    return self.next - 1, {"drawn": (self.next - 1, 1)}

  def state(self):
    return {"next": self.next}

  def restore(self, state):
    self.next = state["next"]


def add(state, number):
  bad = float(number == 99)
  told = {"loss": (number, 1), "nonfinite": (bad, 1)}
  params = {"w": state.params["w"] + number}
  return state.replace(step=state.step + 1, params=params), told


def fit(workdir, steps, save_every=2, keep=2, step=add, **kwargs):
  source, cfg = Numbers(), loop.Loop(steps, save_every, keep)
  shapes = jax.eval_shape(begin)
  args = (cfg, workdir, begin, shapes, step, source.draw)
  return loop.fit(*args, position=source, **kwargs), source


def kept(workdir):
  return checkpoint.steps(workdir / "checkpoints")


def log(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
  ("args", "left"),
  [((5, 2, 2), [4, 5]), ((6, 2, 2), [4, 6]), ((5, 9, 2), [5]),
   ((5, 1, 3), [3, 4, 5])],
)  # fmt: skip
def test_saves_and_keeps(tmp_path, args, left):
  state, _ = fit(tmp_path, *args)
  assert kept(tmp_path) == left
  assert state.step == args[0] and state.params["w"][0] == sum(range(args[0]))
  assert [line["step"] for line in log(tmp_path)] == list(range(args[0]))


def test_goes_on_where_it_stopped(tmp_path):
  whole, _ = fit(tmp_path / "whole", 7)
  fit(tmp_path / "parts", 4)
  state, source = fit(tmp_path / "parts", 7)
  assert source.asked == [(4, 4), (5, 5), (6, 6)]
  assert state.params["w"].tolist() == whole.params["w"].tolist()
  assert log(tmp_path / "parts") == log(tmp_path / "whole")


def test_nothing_is_left_to_do(tmp_path):
  fit(tmp_path, 4)
  state, source = fit(tmp_path, 4)
  assert source.asked == [] and state.step == 4


def test_frozen_is_seen_by_the_step_and_not_saved(tmp_path):
  frozen = {"teacher": jnp.ones(2)}
  seen = []

  def step(state, number):
    seen.append(state.frozen)
    return add(state, number)

  state, _ = fit(tmp_path, 2, step=step, frozen=frozen)
  assert seen == [frozen, frozen]
  assert checkpoint.restore(tmp_path / "checkpoints", jax.eval_shape(begin))
  assert state.frozen is frozen


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_number_that_is_not_finite_is_never_saved(tmp_path, at):
  step = lambda state, number: add(state, 99 if number == at else number)
  with pytest.raises(FloatingPointError, match=f"step {at}") as caught:
    fit(tmp_path, 5, step=step)
  good = at // 2 * 2
  assert kept(tmp_path)[-1:] == ([good] if good else [])
  assert (f"{good:08d} is good" in str(caught.value)) == bool(good)
  assert ("none was saved" in str(caught.value)) == (not good)
  state, _ = fit(tmp_path, 5)
  assert state.params["w"][0] == 10


def test_sigterm_lets_the_step_end_and_saves(tmp_path, capsys):
  before = signal.getsignal(signal.SIGTERM)

  def step(state, number):
    if number == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return add(state, number)

  with pytest.raises(SystemExit) as end:
    fit(tmp_path, 9, save_every=5, step=step)
  assert end.value.code == 0
  assert "stopped and saved at step 3" in capsys.readouterr().out
  assert kept(tmp_path) == [3]
  assert signal.getsignal(signal.SIGTERM) is before
  state, source = fit(tmp_path, 9, save_every=5)
  assert source.asked[0] == (3, 3) and state.params["w"][0] == 36


@pytest.mark.parametrize("field", ["steps", "save_every", "keep"])
def test_numbers_are_positive(field):
  good = loop.Loop(1, 1, 1)
  with pytest.raises(ValueError, match=f"{field}=0"):
    dataclasses.replace(good, **{field: 0})


MODEL = presets.make("tiny", width=16, layers=1, head_dim=8, mlp=16, context=32)


def test_parameters_of_another_model_are_refused(tmp_path):
  mesh = sharding.make_mesh()
  with pytest.raises(FileNotFoundError, match="run its stage first"):
    loop.load_params(tmp_path, MODEL, mesh)
  init = functools.partial(transformer.init, MODEL)
  shapes = jax.eval_shape(init, jax.random.key(0))
  params = jax.tree.map(lambda s: jnp.full(s.shape, 0.5), shapes)
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(1, {"params": params}, None)
  found = loop.load_params(tmp_path, MODEL, mesh)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), found, params)
  assert all(jax.tree.leaves(same))
  for change in ({"vocab": 300}, {"width": 32}, {"tied": False}):
    other = dataclasses.replace(MODEL, **change)
    with pytest.raises(ValueError, match=r"params/\w+_VD is .* in the check"):
      loop.load_params(tmp_path, other, mesh)


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path):
  """Losses 0, 1, 2, ...: the lowest belongs to the first step."""
  for best, left in (("-loss", [1, 5, 6]), ("loss", [5, 6])):
    cfg = loop.Loop(steps=6, save_every=1, keep=2, best=best)
    shapes = jax.eval_shape(begin)
    loop.fit(cfg, tmp_path / best, begin, shapes, add, Numbers().draw)
    assert kept(tmp_path / best) == left


def test_a_best_that_no_step_has_is_named(tmp_path):
  cfg = loop.Loop(steps=1, save_every=1, best="rewrad")
  with pytest.raises(ValueError, match=r"'rewrad'; there are drawn, loss"):
    shapes = jax.eval_shape(begin)
    loop.fit(cfg, tmp_path, begin, shapes, add, Numbers().draw)
