"""Attention under meshes: the split, and the ring, change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research import sharding
from research.models import attend

MESHES = [
  {"data": 2, "fsdp": 2, "tensor": 2},
  {"context": 4},
  {"data": 2, "tensor": 2, "context": 2},
  {"tensor": 4},  # does not divide K = 2: the groups take it
]


def draw(T=24, S=48, B=4, K=2, G=4, H=8):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  return normal(B, T, K, G, H), normal(B, S, K, H), normal(B, S, K, H)


def packed(T, B=4):
  ids = np.sort(np.random.default_rng(1).integers(0, 4, (B, T)), 1)[:, ::-1]
  return jnp.asarray(ids, jnp.int32)


CASES = [(shape, 24) for shape in MESHES]
CASES += [({"context": 4}, 20), ({"context": 4}, 21)]  # no zigzag, no ring


@pytest.mark.parametrize(("shape", "T"), CASES, ids=str)
def test_sequences(shape, T):
  operands = (*draw(T, T), packed(T), jnp.int32(9))

  def run(mesh, q, k, v, ids, window):
    f = lambda *xs: attend.over_itself(
      mesh, *xs, ids, window, softcap=3.0, scale=None
    )
    o, pull = jax.vjp(f, q, k, v)
    return o, *pull(jnp.cos(o))

  alone = jax.jit(lambda *xs: run(None, *xs))(*operands)
  mesh = sharding.make_mesh(**shape)
  spread = jax.jit(lambda *xs: run(mesh, *xs))(*operands)
  for x, y in zip(spread, alone, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize(
  ("T", "layout", "said"),
  [(24, "zigzag", ""), (20, "contiguous", "one after"), (21, None, "whole on")],
)
def test_the_layout_is_a_zigzag_where_it_can_be(
  T, layout, said, monkeypatch, caplog
):
  seen = []

  def spy(q_BTKGH, *_, **how):
    seen.append(how["layout"])
    return q_BTKGH

  monkeypatch.setattr(kernels, "ring_attention", spy)
  attend._say_once.cache_clear()
  mesh = sharding.make_mesh(context=4)
  attend.over_itself(mesh, *draw(T, T), None, None, softcap=None, scale=None)
  assert seen == ([] if layout is None else [layout])
  assert said in caplog.text and bool(said) == bool(caplog.text)


@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("window", [20, None])
def test_caches(shape, window, T):
  operands = (*draw(T=T), jnp.array([0, 3, 20, 44]))
  run = lambda mesh: jax.jit(
    lambda *xs: attend.over_cache(mesh, *xs, window, softcap=None, scale=0.3)
  )
  alone = run(None)(*operands)
  spread = run(sharding.make_mesh(**shape))(*operands)
  np.testing.assert_allclose(spread, alone, atol=1e-5)


@pytest.mark.parametrize("window", [20, None])
def test_a_token_alone_is_a_token_among_others(window):
  """Decoding's kernel against the last of four queries of the other one."""
  q, k, v = draw(T=4)
  run = lambda q, start_B: attend.over_cache(
    None, q, k, v, start_B, window, softcap=2.0, scale=None
  )
  start_B = jnp.array([0, 3, 20, 44])
  among = run(q, start_B)[:, -1:]
  np.testing.assert_allclose(run(q[:, -1:], start_B + 3), among, atol=1e-5)


def test_each_device_holds_its_part():
  mesh = sharding.make_mesh(data=2, tensor=2, context=2)
  q, k, v = draw(S=24)
  f = jax.jit(
    lambda *xs: attend.over_itself(mesh, *xs, None, None, softcap=None, scale=1)
  )
  o = f(q, k, v)
  assert o.addressable_shards[0].data.shape == (2, 12, 1, 4, 8)
  assert "all-gather" not in f.lower(q, k, v).compile().as_text()
