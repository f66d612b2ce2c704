"""What attention promises whatever is drawn, of implementations by tiles.

The TPU's runs in the interpreter. T is more than a tile and no multiple of it.
"""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from tests.kernels.operands import (
  NAMES,
  attend,
  draw,
  everything,
  packed,
  single,
)

T = 150
SEGMENTS = packed(T, [20, 21, 140])
PACKED = {"q_segments_BT": SEGMENTS, "kv_segments_BS": SEGMENTS}
IMPLS = pytest.mark.parametrize("impl", ("xla", "tpu"))
drawn = functools.partial(draw, T=T, S=T)
meant = attend("reference")


def close(got, expected, atol=2e-6):
  for x, y in zip(got, expected, strict=True):
    np.testing.assert_allclose(x, y, atol=atol)


@pytest.mark.parametrize("impl", ("reference", "xla", "tpu"))
def test_causality_by_gradients(impl):
  q, k, v, *_ = single(drawn())
  f = attend(impl, window=4)
  row = jax.jit(jax.grad(lambda kv, t: f(q, *kv)[0][:, t].sum()))
  for t in (0, 3, 127, 129, T - 1):
    dk, dv = (np.abs(x).sum((0, 2, 3)) > 0 for x in row((k, v), t))
    near = (np.arange(T) <= t) & (np.arange(T) > t - 4)
    np.testing.assert_array_equal(dv, near)
    assert not dk[~near].any()


@functools.cache
def cut_at(impl):
  """A jitted call on two segments, whose border is traced."""

  def call(q, k, v, cut):
    ids = jnp.broadcast_to(1 + (jnp.arange(T) >= cut), q.shape[:2])
    return attend(impl, q_segments_BT=ids, kv_segments_BS=ids)(q, k, v)

  return jax.jit(call)


@IMPLS
@hypothesis.settings(max_examples=4)
@hypothesis.given(cut=st.integers(1, T - 1), seed=st.integers(0, 9))
def test_segments_are_separate_calls(impl, cut, seed):
  q, k, v, *_ = single(drawn(seed=seed))
  o, lse = cut_at(impl)(q, k, v, cut)
  for part in (slice(0, cut), slice(cut, T)):
    alone = meant(q[:, part], k[:, part], v[:, part])
    close((o[:, part], lse[:, part]), alone)


@IMPLS
@hypothesis.settings(max_examples=3)
@hypothesis.given(cut=st.integers(0, T))
def test_parts_of_the_keys_merge_to_the_whole(impl, cut):
  """Also where a part is empty for some rows: keys behind the causal edge."""
  q, k, v, *_ = single(drawn())
  left = attend(impl)(q, k[:, :cut], v[:, :cut])
  right = attend(impl, q_offset=-cut)(q, k[:, cut:], v[:, cut:])
  close(kernels.merge(*left, *right), meant(q, k, v))


@IMPLS
def test_grouped_queries_are_repeated_keys(impl):
  q, k, v, do, dlse = drawn()
  grouped = everything(attend(impl), (q, k, v, do, dlse), jnp.float32)
  flat = lambda x: x.reshape(*x.shape[:2], 4, 1, *x.shape[4:])
  each = lambda x: np.repeat(x, 2, axis=2)
  many = (flat(q), each(k), each(v), flat(do), flat(dlse))
  apart = everything(attend(impl), many, jnp.float32)
  close([flat(grouped["o"])], [apart["o"]])
  for name in ("dk", "dv"):
    summed = apart[name].reshape(2, T, 2, 2, 16).sum(3)
    close([grouped[name]], [summed], atol=2e-5)


@IMPLS
def test_a_window_as_long_as_the_row_is_causal(impl):
  q, k, v, *_ = single(drawn())
  plain = attend(impl)(q, k, v)
  for window in (T, jnp.asarray(T + 99)):
    close(plain, attend(impl, window=window)(q, k, v))
  assert np.abs(attend(impl, window=2)(q, k, v)[0] - plain[0]).max() > 1e-3


@IMPLS
def test_nothing_leaks_from_padding(impl):
  """NaN in every input and cotangent at segment 0, in all five results."""
  arrays, f = drawn(), attend(impl, **PACKED)
  clean = everything(f, arrays, jnp.float32)
  spoilt = [x.copy() for x in arrays]
  for x in spoilt:
    x[:, 140:] = np.nan
  dirty = everything(f, spoilt, jnp.float32, clean=False)
  for name in NAMES:
    np.testing.assert_array_equal(clean[name], dirty[name])
  assert not clean["o"][:, 140:].any()
  assert np.isneginf(clean["lse"][:, 140:]).all()


@IMPLS
def test_bitwise_the_same_from_run_to_run(impl):
  once, twice = (everything(attend(impl), drawn(), jnp.bfloat16) for _ in "ab")
  for name in NAMES:
    np.testing.assert_array_equal(once[name], twice[name])


@IMPLS
def test_sinks_are_a_key_without_a_value(impl):
  q, k, v, do, dlse = single(drawn())
  sinks = jnp.arange(4.0).reshape(2, 2) - 1

  def beside(sinks):
    """o and lse, the sink taken in by hand."""
    o, lse = meant(q, k, v)
    wide = jnp.logaddexp(lse, sinks[None, None])
    return o * jnp.exp(lse - wide)[..., None], wide

  out, pull = jax.vjp(lambda x: attend(impl, sinks=x)(q, k, v), sinks)
  expected, push = jax.vjp(beside, sinks)
  close(out, expected)
  close(pull((do, dlse)), push((do, dlse)), atol=1e-4)


@IMPLS
def test_padding_has_no_gradient_for_sinks(impl):
  q, k, v, do, dlse = single(drawn())
  do, dlse = (x.at[:, 140:].set(jnp.nan) for x in (do, dlse))
  f = lambda s: attend(impl, sinks=s, **PACKED)(q, k, v)
  (o, lse), pull = jax.vjp(f, jnp.zeros((2, 2)))
  assert np.isneginf(lse[:, 140:]).all() and not o[:, 140:].any()
  assert np.isfinite(pull((do, dlse))[0]).all()
