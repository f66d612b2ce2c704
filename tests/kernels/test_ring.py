"""The ring on four fake devices: attention over the whole sequence, no less.

Who computes a part does not matter to the ring: mostly it is the reference,
which compiles soonest.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import kernels
from kernels import ring
from research import sharding

ALONG = PartitionSpec(None, "context")
NAMES = ("o", "lse", "dq", "dk", "dv", "dsinks")


def draw(T=48, B=2, K=2, G=2, H=8, seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
  q, k, v = normal(B, T, K, G, H), normal(B, T, K, H), normal(B, T, K, H)
  return q, k, v, normal(K, G), normal(B, T, K, G, H), normal(B, T, K, G)


def packed(T, B=2):
  """Documents of uneven lengths, and padding at the end."""
  ids = np.sort(np.random.default_rng(1).integers(1, 4, (B, T)), 1)
  ids[:, -5:] = 0
  return jnp.asarray(ids, jnp.int32)


def on_ring(devices, layout, f):
  """f(q, k, v, sinks, ids) of a whole sequence, split over so many devices."""
  mesh = sharding.make_mesh(context=devices)
  zigzag = layout == "zigzag"

  def part(q, k, v, sinks, ids):
    there = functools.partial(kernels.to_zigzag, axis_name="context")
    back = functools.partial(kernels.from_zigzag, axis_name="context")
    if zigzag:
      q, k, v, ids = jax.tree.map(there, (q, k, v, ids))
    o, lse = f(q, k, v, sinks, ids, axis_name="context", layout=layout)
    return (back(o), back(lse)) if zigzag else (o, lse)

  specs = ALONG, ALONG, ALONG, PartitionSpec(), ALONG
  return jax.shard_map(
    part, mesh=mesh, in_specs=specs, out_specs=ALONG, check_vma=False
  )


def attend(q, k, v, sinks, ids, **how):
  call = ring.ring_attention if "layout" in how else kernels.flash_attention
  segments = {"q_segments_BT": ids, "kv_segments_BS": ids}
  how = {"impl": "reference", "return_lse": True, **segments, **how}
  return call(q, k, v, sinks=sinks, **how)


def everything(f, arrays, ids):
  """Outputs, then gradients, of f(q, k, v, sinks, ids)."""
  *operands, do, dlse = arrays

  def run(*operands):
    (o, lse), pull = jax.vjp(lambda *xs: f(*xs, ids), *operands)
    return o, lse, *pull((do, jnp.where(jnp.isneginf(lse), 0, dlse)))

  return dict(zip(NAMES, jax.jit(run)(*operands), strict=True))


CASES = {
  "causal": {},
  "full": {"causal": False},
  "window": {"window": 9},
  "a window beyond two chunks": {"window": 31, "causal": False},
  "softcap": {"softcap": 2.0, "scale": 0.7},
}


def compare(devices, layout, ids=None, arrays=None, tolerance=1e-5, **how):
  arrays = draw() if arrays is None else arrays
  expected = everything(functools.partial(attend, **how), arrays, ids)
  f = on_ring(devices, layout, functools.partial(attend, **how))
  got = everything(f, arrays, ids)
  for name in NAMES:
    np.testing.assert_allclose(
      got[name], expected[name], atol=tolerance, err_msg=name
    )


FAST = {("causal", "zigzag"), ("window", "zigzag"), ("causal", "contiguous")}


@pytest.mark.parametrize(
  ("name", "layout"),
  [
    pytest.param(*x, marks=() if x in FAST else pytest.mark.slow)
    for x in itertools.product(CASES, ring.LAYOUTS)
  ],
)
def test_a_ring_of_four_is_the_whole(name, layout):
  compare(4, layout, **CASES[name])


def test_packed_and_padded():
  compare(4, "zigzag", ids=packed(48), window=11)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ring.LAYOUTS)
def test_packed_and_padded_without_a_window(layout):
  compare(4, layout, ids=packed(48))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_any_number_of_devices(devices):
  compare(devices, "zigzag", ids=packed(48))


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 11])
def test_over_tiles_that_are_skipped(window):
  blocks = kernels.Blocks(8, 8, 8, 8)
  compare(2, "zigzag", window=window, impl="xla", blocks=blocks)


@pytest.mark.slow
def test_a_traced_window_a_row():
  compare(4, "zigzag", window=jnp.asarray([5, 40]))


def test_without_sinks_rows_may_see_nothing():
  q, k, v, _, do, dlse = draw()
  ids = packed(48)
  plain = lambda q, k, v, sinks, ids, **how: attend(q, k, v, None, ids, **how)
  arrays = q, k, v, jnp.zeros(()), do, dlse
  got = everything(on_ring(4, "zigzag", plain), arrays, ids)
  assert np.isneginf(np.asarray(got["lse"])[:, -5:]).all()
  assert not np.asarray(got["o"])[:, -5:].any()
  assert all(np.isfinite(np.asarray(got[n])).all() for n in NAMES[2:])


def test_a_wrong_layout_is_another_attention():
  """Negative control: a zigzag taken for a contiguous sequence."""
  wrong = lambda *xs, layout, **how: attend(*xs, layout="contiguous", **how)
  arrays = draw()
  got = everything(on_ring(4, "zigzag", wrong), arrays, None)
  expected = everything(attend, arrays, None)
  assert np.abs(got["o"] - expected["o"]).max() > 0.1


def test_bf16_errs_hardly_more_than_one_device():
  """Outputs are merged and gradients summed in fp32; the oracle is fp32."""
  wide = draw()
  narrow = [x.astype(jnp.bfloat16) for x in wide[:-1]] + [wide[-1]]
  exact = everything(attend, [x.astype(jnp.float32) for x in narrow], None)
  one = everything(attend, narrow, None)
  eight = everything(on_ring(8, "zigzag", attend), narrow, None)
  norm = lambda x: np.linalg.norm(np.asarray(x, np.float64))
  for name in NAMES:
    error = lambda got, n=name: norm(
      np.asarray(got[n], np.float64) - np.asarray(exact[n], np.float64)
    )
    assert error(eight) <= 1.25 * error(one) + 2e-5, name


def test_zigzag_there_and_back():
  mesh = sharding.make_mesh(context=4)
  x = jnp.arange(32)[None]
  cut = functools.partial(
    jax.shard_map, mesh=mesh, in_specs=ALONG, out_specs=ALONG
  )
  there = cut(lambda x: kernels.to_zigzag(x, "context"))(x)
  chunks = np.asarray(there).reshape(8, 4)[:, 0] // 4
  assert chunks.tolist() == [0, 7, 1, 6, 2, 5, 3, 4]
  back = cut(lambda x: kernels.from_zigzag(x, "context"))(there)
  np.testing.assert_array_equal(back, x)


@pytest.mark.slow
def test_nothing_grows_with_the_ring():
  """Compiled temporaries of one device, at 96 tokens each, 2 and 8 devices."""

  def temporary(devices):
    arrays = draw(T=96 * devices)
    f = on_ring(devices, "zigzag", functools.partial(attend, impl="xla"))
    total = lambda *xs: sum(x.sum() for x in f(*xs, None))
    run = jax.jit(jax.grad(total, (0, 1, 2)))
    compiled = run.lower(*arrays[:4]).compile()
    assert not re.search("all-gather", compiled.as_text())
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary(8) <= 1.1 * temporary(2)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"layout": "spiral"}, "layout is 'spiral'; it is one of zigzag"),
    ({"window": 0}, "window is 0"),
    ({"T": 45}, r"q has shape \(1, 9, 1, 1, 8\); a zigzag's T is even"),
    ({"S": 20}, "as many keys as queries"),
  ],
)
def test_what_does_not_fit_is_named(change, message):
  T = change.pop("T", 40)
  S = change.pop("S", T)
  q, k = jnp.zeros((1, T, 1, 1, 8)), jnp.zeros((1, S, 1, 8))
  how = {"layout": "zigzag", **change}
  mesh = sharding.make_mesh(context=5)
  f = functools.partial(ring.ring_attention, axis_name="context", **how)
  part = jax.shard_map(
    f, mesh=mesh, in_specs=ALONG, out_specs=ALONG, check_vma=False
  )
  with pytest.raises(ValueError, match=message):
    part(q, k, k)
