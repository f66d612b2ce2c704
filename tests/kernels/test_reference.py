"""Attention's oracle against NumPy in fp64, written a query at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels

attend = functools.partial(kernels.flash_attention, impl="reference")


def oracle(q, k, v, ok, scale, softcap):
  """o[b, t, k, g] by loops; `ok[b, t, s]` says what is seen."""
  o = np.zeros(q.shape[:-1] + v.shape[-1:])
  for b, t, h, g in np.ndindex(*q.shape[:-1]):
    s = k[b, :, h] @ q[b, t, h, g] * scale
    s = softcap * np.tanh(s / softcap) if softcap else s
    seen = np.flatnonzero(ok[b, t])
    if len(seen):
      p = np.exp(s[seen] - s[seen].max())
      o[b, t, h, g] = p @ v[b, seen, h] / p.sum()
  return o


def draw(rng, B=2, T=7, S=7, K=2, G=3, H=4, scale=1.0):
  shape = lambda *s: scale * rng.standard_normal(s)
  return shape(B, T, K, G, H), shape(B, S, K, H), shape(B, S, K, H)


@pytest.mark.parametrize("size", [1, 4, 10])
@pytest.mark.parametrize(
  "window, softcap, offset",
  [(None, None, 0), (3, None, 0), (None, 5.0, 0), (2, 5.0, (3, 0))],
)
def test_equals_the_fp64_oracle(window, softcap, offset, size):
  rng = np.random.default_rng(0)
  q, k, v = draw(rng, S=11, scale=size)
  offset_B = np.broadcast_to(offset, 2)
  t, s = np.arange(7)[None, :, None], np.arange(11)[None, None]
  at = offset_B[:, None, None] + t
  ok = (s <= at) & (s > at - (window or 99))
  with jax.enable_x64(True):
    out = attend(
      jnp.asarray(q),
      jnp.asarray(k),
      jnp.asarray(v),
      window=window,
      softcap=softcap,
      q_offset=jnp.asarray(offset_B),
    )
    expected = oracle(q, k, v, ok, 4**-0.5, softcap)
    np.testing.assert_allclose(out, expected, atol=1e-12)
  low = attend(
    *(jnp.asarray(x, jnp.float32) for x in (q, k, v)),
    window=window,
    softcap=softcap,
    q_offset=jnp.asarray(offset_B),
  )
  np.testing.assert_allclose(low, expected, atol=2e-5 * size)


def test_segments_are_separate_calls():
  rng = np.random.default_rng(1)
  q, k, v = (jnp.asarray(x, jnp.float32) for x in draw(rng, B=1))
  seg_BT = jnp.array([[1, 1, 1, 2, 2, 2, 2]])
  whole = attend(q, k, v, q_segments_BT=seg_BT, kv_segments_BS=seg_BT)
  for part in (slice(0, 3), slice(3, 7)):
    alone = attend(q[:, part], k[:, part], v[:, part])
    np.testing.assert_allclose(whole[:, part], alone, atol=1e-6)


def test_a_query_that_sees_nothing_gets_zero_and_no_gradient():
  rng = np.random.default_rng(2)
  q, k, v = (jnp.asarray(x, jnp.float32) for x in draw(rng, B=1))
  mine, theirs = jnp.full((1, 7), 1), jnp.full((1, 7), 2)

  def total(q, k, v):
    out = attend(q, k, v, q_segments_BT=mine, kv_segments_BS=theirs)
    return (out**2).sum(), out

  grads, out = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
  assert not np.any(out)
  assert all(not np.any(g) for g in grads)


def test_causality_by_gradients():
  rng = np.random.default_rng(3)
  q, k, v = (jnp.asarray(x, jnp.float32) for x in draw(rng, B=1))
  row = lambda t: jax.grad(lambda v: attend(q, k, v)[:, t].sum())(v)
  for t in range(7):
    touched = np.abs(row(t)).sum((0, 2, 3)) > 0
    np.testing.assert_array_equal(touched, np.arange(7) <= t)


def test_a_window_as_long_as_the_row_is_causal_and_may_be_traced():
  rng = np.random.default_rng(4)
  q, k, v = (jnp.asarray(x, jnp.float32) for x in draw(rng))
  windowed = jax.jit(lambda w: attend(q, k, v, window=w))
  plain = attend(q, k, v)
  np.testing.assert_allclose(windowed(7), plain, atol=1e-6)
  assert np.abs(windowed(2) - plain).max() > 1e-3
