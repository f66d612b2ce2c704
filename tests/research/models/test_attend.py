"""Attention under meshes: the split, and the ring, change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("window", [20, None])
def test_caches(shape, window):
  operands = (*draw(T=4), jnp.array([0, 3, 20, 44]))
  run = lambda mesh: jax.jit(
    lambda *xs: attend.over_cache(mesh, *xs, window, softcap=None, scale=0.3)
  )
  alone = run(None)(*operands)
  spread = run(sharding.make_mesh(**shape))(*operands)
  np.testing.assert_allclose(spread, alone, atol=1e-5)


def test_each_device_holds_its_part():
  mesh = sharding.make_mesh(data=2, tensor=2, context=2)
  q, k, v = draw(S=24)
  f = jax.jit(
    lambda *xs: attend.over_itself(mesh, *xs, None, None, softcap=None, scale=1)
  )
  o = f(q, k, v)
  assert o.addressable_shards[0].data.shape == (2, 12, 1, 4, 8)
  assert "all-gather" not in f.lower(q, k, v).compile().as_text()
