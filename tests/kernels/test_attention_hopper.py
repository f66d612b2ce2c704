"""The Hopper kernels on the CPU interpreter, against fp64 and planted bugs.

The interpreter runs a variant with P in shared memory; the variant that keeps
it in registers is compiled by tests/compile/test_hopper.py, and only a GPU
runs it. Nor does a ring run here: the interpreter keeps one memory for all
devices, takes another's barriers for leaks, and with that check off may hang.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call as state
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import attention_hopper, hopper, mask
from kernels.mask import Blocks, Limits, Rule

SMALL = Blocks(128, 64, 64, 64)
SEGMENTS = np.repeat([[1, 2, 3], [1, 1, 0]], 50, 1).astype(np.int32)
OTHERS = np.repeat([[1, 2, 4], [1, 2, 0]], 50, 1).astype(np.int32)
PACKED = Limits(q_segments_BT=SEGMENTS, kv_segments_BS=OTHERS)
TRACED = Limits(np.array([70, 33]), np.array([50, -20]))
CASES = {  # name: T, S, H, G, rule, limits, size of the logits
  "causal": (128, 128, 64, 1, Rule(True, 0.125, blocks=SMALL), Limits(), 4),
  "gqa, window, odd": (
    100, 140, 80, 2, Rule(True, 0.1, window=40, q_offset=40, blocks=SMALL),
    Limits(), 1,
  ),
  "traced, softcap": (
    150, 200, 64, 1, Rule(True, 0.1, softcap=20.0, blocks=SMALL), TRACED, 10,
  ),
  "packed": (150, 150, 64, 1, Rule(False, 0.1, blocks=SMALL), PACKED, 1),
}  # fmt: skip


@contextlib.contextmanager
def interpreter():
  """The Mosaic GPU interpreter; yields a function that says of races."""
  device = jax.sharding.AbstractDevice(
    device_kind="NVIDIA H100 80GB HBM3", platform="gpu", num_cores=8
  )
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
  state.gpu_callbacks.reset_gpu_interpret_mode_state()
  with jax.sharding.use_abstract_mesh(mesh):
    yield lambda: state.get_races().races_found
  state.gpu_callbacks.reset_gpu_interpret_mode_state()


def draw(T, S, H, G, size=1, dtype=jnp.bfloat16):
  rng = np.random.default_rng(0)
  make = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
  q, k, v = make(2, T, 1, G, H) * size, make(2, S, 1, H), make(2, S, 1, H)
  return q, k, v, make(2, T, 1, G, H)


def attend(q, k, v, do, rule, limits, wide):
  """(o, lse, delta, dq, dk, dv) at once; narrow roundings unless `wide`."""
  exact = lambda x: np.asarray(x, np.float64)
  narrow = lambda x: exact(x if wide else jnp.asarray(x, jnp.bfloat16))
  q, k, v, do = map(exact, (q, k, v, do))
  seen = mask.visible(q.shape[1], k.shape[1], rule, limits)
  seen = np.asarray(seen)[:, None, None]
  s, slope = np.einsum("btkgh,bskh->bkgts", q, k) * rule.scale, 1
  if rule.softcap:
    t = np.tanh(s / rule.softcap)
    s, slope = rule.softcap * t, 1 - t * t
  s = np.where(seen, s, -np.inf)
  with np.errstate(divide="ignore"):
    lse = np.logaddexp.reduce(s, -1, keepdims=True)
  p = np.exp(s - np.where(np.isfinite(lse), lse, 0))
  o = np.einsum("bkgts,bskh->btkgh", narrow(p), v)
  delta = (o * do).sum(-1).transpose(0, 2, 3, 1)[..., None]
  ds = p * (np.einsum("btkgh,bskh->bkgts", do, v) - delta)
  ds = narrow(ds * slope) * rule.scale
  dq = np.einsum("bkgts,bskh->btkgh", ds, k)
  dk = np.einsum("bkgts,btkgh->bskh", ds, q)
  dv = np.einsum("bkgts,btkgh->bskh", narrow(p), do)
  row = lambda x: x[..., 0].transpose(0, 3, 1, 2)
  return (*map(narrow, (o,)), row(lse), row(delta), *map(narrow, (dq, dk, dv)))


def close(got, case):
  """Asserts twice the naive error at most, per output that is given."""
  T, S, H, G, rule, limits, size = case
  data = draw(T, S, H, G, size)
  exact, naive = (attend(*data, rule, limits, w) for w in (True, False))
  for name, x in got.items():
    i = ("o", "lse", "delta", "dq", "dk", "dv").index(name)
    x, real = np.asarray(x, np.float64), np.isfinite(exact[i])
    np.testing.assert_array_equal(np.isfinite(x), real, name)
    off = lambda y: np.linalg.norm(y[real] - exact[i][real])
    bound = 2 * off(naive[i]) + 1e-5 * np.linalg.norm(exact[i][real])
    assert off(x) <= bound, (name, off(x), bound)


def run_forward(case):
  T, S, H, G, rule, limits, size = case
  q, k, v, _ = draw(T, S, H, G, size)
  check = plgpu.InterpretGPUParams(detect_races=True)
  with interpreter() as races:
    o, lse = attention_hopper.forward(q, k, v, rule, limits, check)
    return {"o": np.asarray(o), "lse": np.asarray(lse)}, races()


def run_backward(case):
  T, S, H, G, rule, limits, size = case
  data = draw(T, S, H, G, size)
  _, lse, delta, *_ = attend(*data, rule, limits, True)
  lse, delta = (jnp.asarray(x, jnp.float32) for x in (lse, delta))
  check = plgpu.InterpretGPUParams(detect_races=True)
  with interpreter() as races:
    out = attention_hopper.backward(*data, lse, delta, rule, limits, check)
    named = zip(("dq", "dk", "dv"), map(np.asarray, out), strict=True)
    return dict(named), races()


FAST = ["gqa, window, odd"]
SLOW = [pytest.param(x, marks=pytest.mark.slow) for x in CASES if x not in FAST]


@pytest.mark.parametrize("name", [*FAST, *SLOW])
@pytest.mark.parametrize("run", [run_forward, run_backward])
def test_within_twice_the_naive_error_and_no_race(run, name):
  got, races = run(CASES[name])
  assert not races
  close(got, CASES[name])


@pytest.mark.slow
def test_width_256_backward():
  case = (70, 70, 256, 2, Rule(True, 0.06), Limits(), 1)
  got, races = run_backward(case)
  assert not races
  close(got, case)


def test_a_missing_wait_is_caught(monkeypatch):
  """The race check sees queries read that may still be on their way."""
  wait, calls = plgpu.barrier_wait, []

  def forget(barrier):
    calls.append(barrier)
    # In tracing order: the copying warpgroup's two waits, then the queries'.
    if len(calls) != 3:
      wait(barrier)

  monkeypatch.setattr(hopper.plgpu, "barrier_wait", forget)
  _, races = run_forward(CASES["causal"])
  assert races


def test_a_wrong_edge_is_caught(monkeypatch):
  """A query that sees one key too many fails the comparison."""
  inside = mask.inside
  late = lambda q, k, causal, window: inside(q + 1, k, causal, window)
  monkeypatch.setattr(hopper.mask, "inside", late)
  got, _ = run_forward(CASES["causal"])
  monkeypatch.undo()
  with pytest.raises(AssertionError):
    close(got, CASES["causal"])


def test_every_visible_pair_is_walked_and_no_masked_one_goes_unmasked():
  """The loop bounds against the mask itself, without a kernel."""
  for name, (T, S, H, _, rule, limits, _) in CASES.items():
    seen = np.asarray(mask.visible(T, S, rule, limits))
    seen = np.broadcast_to(seen, (2, T, S))
    for kind in ("dq", "dkv"):
      plan = hopper.plan_of(kind, -(-H // 64) * 64, rule, limits)
      walk, table = hopper.walk_of(kind, plan, rule, limits, 2, T, S)
      grid = seen.swapaxes(1, 2) if kind == "dkv" else seen
      for b, i in np.ndindex(2, -(-grid.shape[1] // plan.tile)):
        bounds = walk.of(jnp.int32(i), table[0] if table else None, b)[0]
        low, full_low, full_high, high = map(int, bounds)
        rows = grid[b, i * plan.tile : (i + 1) * plan.tile]
        at = np.arange(rows.shape[1]) // plan.block
        assert not rows[:, (at < low) | (at >= high)].any(), (name, kind)
        whole = rows[:, (at >= full_low) & (at < full_high)]
        assert whole.all(), (name, kind)


@pytest.mark.parametrize(
  "bounds", [(2, 4, 7, 9), (0, 0, 3, 4), (1, 3, 3, 3), (1, 2, 2, 5), (4,) * 4]
)
def test_a_walk_visits_each_block_once_and_the_whole_ones_first(bounds):
  low, full_low, full_high, high = bounds
  walked = [int(hopper.block_at(bounds, i)) for i in range(high - low)]
  whole = list(range(full_low, full_high))
  assert walked[: len(whole)] == whole
  assert sorted(walked) == list(range(low, high))
