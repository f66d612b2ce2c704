"""Attention on every implementation: one oracle, one set of promises.

The oracle is the reference in fp64, which test_reference.py holds against loops
in NumPy. A kernel may err at most twice as much as attention written plainly
in its inputs' dtype, for each output and each gradient.
"""

import functools
import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import kernels
from kernels import Blocks, mask

# The Pallas kernels have tests of their own beside this file.
IMPLS = ("xla",)
BLOCKS = {"xla": Blocks(24, 16, 16, 24)}
NAMES = ("o", "lse", "dq", "dk", "dv")


def draw(B=2, T=37, S=37, K=2, G=2, H=16, size=1.0, seed=0):
  """(q, k, v, do, dlse) in fp64, normal and `size` times as large."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape)
  q, k, v = normal(B, T, K, G, H), normal(B, S, K, H), normal(B, S, K, H)
  return size * q, size * k, v, normal(B, T, K, G, H), normal(B, T, K, G)


def naive(q, k, v, seen_BTS, scale, softcap):
  """Attention as first written down: every product in the inputs' dtype."""
  s = jnp.einsum("BTKGH,BSKH->BKGTS", q, k) * jnp.asarray(scale, q.dtype)
  s = softcap * jnp.tanh(s / softcap) if softcap else s
  some = seen_BTS.any(-1)[:, None, None, :, None]
  s = jnp.where(seen_BTS[:, None, None] | ~some, s, -jnp.inf)
  s = s.astype(jnp.promote_types(s.dtype, jnp.float32))
  lse = jax.nn.logsumexp(s, -1)
  p = jnp.where(some, jax.nn.softmax(s), 0).astype(v.dtype)
  lse = jnp.where(some[..., 0], lse, -jnp.inf)
  return jnp.einsum("BKGTS,BSKH->BTKGH", p, v), lse.transpose(0, 3, 1, 2)


def everything(f, arrays, dtype, clean=True):
  """{name: fp64 array} of the outputs and gradients of f(q, k, v).

  `clean` sends no cotangent to an lse of -inf, which has no slope.
  """

  @jax.jit
  def run(q, k, v, do, dlse):
    (o, lse), pull = jax.vjp(f, q, k, v)
    if clean:
      dlse = jnp.where(jnp.isneginf(lse), 0, dlse)
    return o, lse, *pull((do.astype(o.dtype), dlse.astype(lse.dtype)))

  values = run(*(jnp.asarray(x, dtype) for x in arrays))
  wide = (np.asarray(x, np.float64) for x in values)
  return dict(zip(NAMES, wide, strict=True))


def attend(impl, **kw):
  f = functools.partial(
    kernels.flash_attention,
    return_lse=True,
    impl=impl,
    blocks=BLOCKS.get(impl),
    **kw,
  )
  return jax.jit(f)


def judge(impl, arrays, dtype, **kw):
  """Fails where the kernel errs more than twice as much as plain attention."""
  low = [np.asarray(jnp.asarray(x, dtype), np.float64) for x in arrays]
  with jax.enable_x64(True):
    arrays_only = lambda x: x if np.isscalar(x) else jnp.asarray(x)
    wide = {name: arrays_only(x) for name, x in kw.items()}
    truth = everything(attend("reference", **wide), low, jnp.float64)
  T, S, H = arrays[0].shape[1], arrays[1].shape[1], arrays[0].shape[-1]
  seen_BTS = visible(T, S, **kw)
  plain = lambda q, k, v: naive(
    q, k, v, seen_BTS, kw.get("scale", H**-0.5), kw.get("softcap")
  )
  rough = everything(plain, low, dtype)
  mine = everything(attend(impl, **kw), low, dtype)
  for name in NAMES:
    hidden = np.isneginf(truth[name])
    np.testing.assert_array_equal(np.isneginf(mine[name]), hidden)
    far = lambda x, name=name, hidden=hidden: np.linalg.norm(
      np.where(hidden, 0, x[name]) - np.where(hidden, 0, truth[name])
    )
    norm = np.linalg.norm(np.where(hidden, 0, truth[name]))
    epsilon = 4 * float(jnp.finfo(jnp.float32).eps) * norm
    assert far(mine) <= 2 * far(rough) + epsilon, (name, far(mine), far(rough))


def visible(T, S, causal=True, window=None, q_offset=0, **kw):
  limits = mask.Limits(
    None if window is None else jnp.atleast_1d(jnp.asarray(window)),
    jnp.atleast_1d(jnp.asarray(q_offset)),
    kw.get("q_segments_BT"),
    kw.get("kv_segments_BS"),
  )
  seen_BTS = mask.visible(T, S, mask.Rule(causal, 1.0), limits)
  if "q_segments_BT" in kw:
    seen_BTS = seen_BTS & (kw["q_segments_BT"] > 0)[:, :, None]
  return seen_BTS


def packed(T, ends, B=2):
  """Segments 1, 2, ... that end where told, then padding; int32 [B, T]."""
  row = np.searchsorted(ends, np.arange(T), side="right") + 1
  row[np.arange(T) >= ends[-1]] = 0
  return jnp.asarray(np.broadcast_to(row, (B, T)), jnp.int32)


SEGMENTS = packed(37, [5, 6, 30])
CASES = {
  "causal": {},
  "full": {"causal": False},
  "window": {"window": 9},
  "window of one": {"window": 1},
  "window and all behind": {"window": 9, "causal": False},
  "softcap": {"softcap": 2.0, "scale": 0.7},
  "packed": {"q_segments_BT": SEGMENTS, "kv_segments_BS": SEGMENTS},
  "packed window": {
    "q_segments_BT": SEGMENTS,
    "kv_segments_BS": SEGMENTS,
    "window": 3,
  },
  "offset": {"q_offset": 11},
  "offsets, empty rows": {"q_offset": np.array([-7, 3], np.int32)},
  "traced window": {"window": np.array([4, 11], np.int32), "q_offset": 2},
  "blind": {"q_offset": -99},
  "no window to speak of": {"window": 2**31 - 1},
  "none, and all behind": {
    "window": 2**31 - 1,
    "causal": False,
    "q_offset": -5,
  },
}
SHAPES = {
  "a query": {"T": 1, "S": 19},
  "more keys": {"T": 21, "S": 50},
  "fewer keys": {"T": 50, "S": 21},
  "GQA 1": {"K": 3, "G": 1},
  "GQA 4": {"K": 1, "G": 4},
  "GQA 8": {"K": 1, "G": 8, "T": 9},
  "H 64": {"H": 64, "T": 20},
  "H 80": {"H": 80, "T": 20},
  "H 96": {"H": 96, "T": 20},
  "H 128": {"H": 128, "T": 20},
  "H 256": {"H": 256, "T": 20},
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", CASES)
def test_masks_in_bf16(case, impl):
  judge(impl, draw(), jnp.bfloat16, **CASES[case])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_in_bf16(shape, impl):
  judge(impl, draw(**SHAPES[shape]), jnp.bfloat16)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("size", [4, 10])
def test_large_scores(size, impl):
  judge(impl, draw(size=size), jnp.bfloat16)


@pytest.mark.parametrize("impl", IMPLS)
def test_outliers(impl):
  """A key a thousand times as long as the others takes every row it can."""
  arrays = draw()
  arrays[1][:, 3] *= 1000
  arrays[2][:, 5] *= 1000
  judge(impl, arrays, jnp.bfloat16)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("case", ["causal", "packed window", "softcap"])
def test_fp32(case, impl):
  judge(impl, draw(), jnp.float32, **CASES[case])


def test_a_wrong_mask_edge_is_caught(monkeypatch):
  """The negative control: a query that sees one key too many."""
  monkeypatch.setattr(
    mask, "inside", lambda q_at, k_at, causal, window: k_at <= q_at + 1
  )
  with pytest.raises(AssertionError, match="'o'"):
    mine = everything(attend("xla"), draw(), jnp.bfloat16)
    monkeypatch.undo()
    truth = everything(attend("reference"), draw(), jnp.float32)
    gap = np.linalg.norm(mine["o"] - truth["o"])
    assert gap <= 0.01 * np.linalg.norm(truth["o"]), "'o'"


def single(arrays):
  return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.mark.parametrize("impl", ("reference", *IMPLS))
def test_causality_by_gradients(impl):
  q, k, v, *_ = single(draw(T=9, S=9))
  f = attend(impl, window=4)

  def row(t):
    return jax.grad(lambda kv: f(q, *kv)[0][:, t].sum())((k, v))

  near = lambda t: (np.arange(9) <= t) & (np.arange(9) > t - 4)
  for t in (0, 3, 8):
    dk, dv = row(t)
    for x in (dk, dv):
      touched = np.abs(x).sum((0, 2, 3)) > 0
      assert not touched[~near(t)].any()
    assert (np.abs(dv).sum((0, 2, 3)) > 0)[near(t)].all()


@pytest.mark.parametrize("impl", IMPLS)
@hypothesis.settings(max_examples=5)
@hypothesis.given(cut=st.integers(1, 36), seed=st.integers(0, 9))
def test_segments_are_separate_calls(impl, cut, seed):
  q, k, v, *_ = single(draw(seed=seed))
  segments = packed(37, [cut, 37])
  whole = attend(impl, q_segments_BT=segments, kv_segments_BS=segments)
  o, lse = whole(q, k, v)
  for part in (slice(0, cut), slice(cut, 37)):
    alone = attend("reference")(q[:, part], k[:, part], v[:, part])
    np.testing.assert_allclose(o[:, part], alone[0], atol=2e-6)
    np.testing.assert_allclose(lse[:, part], alone[1], atol=2e-6)


@pytest.mark.parametrize("impl", IMPLS)
@hypothesis.settings(max_examples=5)
@hypothesis.given(cut=st.integers(0, 37))
def test_parts_of_the_keys_merge_to_the_whole(impl, cut):
  """Also where a part is empty for some rows: keys behind the causal edge."""
  q, k, v, *_ = single(draw())
  left = (k[:, :cut], v[:, :cut]) if cut else (k[:, :1] * 0, v[:, :1] * 0)
  o1, lse1 = attend(impl)(q, *left)
  if not cut:
    o1, lse1 = jnp.zeros_like(o1), jnp.full_like(lse1, -jnp.inf)
  right = (k[:, cut:], v[:, cut:])
  if cut == 37:
    o2, lse2 = jnp.zeros_like(o1), jnp.full_like(lse1, -jnp.inf)
  else:
    o2, lse2 = attend(impl, q_offset=jnp.asarray(-cut))(q, *right)
  o, lse = kernels.merge(o1, lse1, o2, lse2)
  whole = attend("reference")(q, k, v)
  np.testing.assert_allclose(o, whole[0], atol=2e-6)
  np.testing.assert_allclose(lse, whole[1], atol=2e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_grouped_queries_are_repeated_keys(impl):
  q, k, v, do, dlse = draw()
  grouped = everything(attend(impl), (q, k, v, do, dlse), jnp.float32)
  flat = lambda x: x.reshape(*x.shape[:2], 4, 1, *x.shape[4:])
  each = lambda x: np.repeat(x, 2, axis=2)
  many = (flat(q), each(k), each(v), flat(do), flat(dlse))
  apart = everything(attend(impl), many, jnp.float32)
  np.testing.assert_allclose(flat(grouped["o"]), apart["o"], atol=2e-6)
  for name in ("dk", "dv"):
    summed = apart[name].reshape(2, 37, 2, 2, 16).sum(3)
    np.testing.assert_allclose(grouped[name], summed, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_window_as_long_as_the_row_is_causal(impl):
  q, k, v, *_ = single(draw())
  plain, _ = attend(impl)(q, k, v)
  for window in (37, 99, jnp.asarray(37)):
    same, _ = attend(impl, window=window)(q, k, v)
    np.testing.assert_allclose(plain, same, atol=2e-6)
  assert np.abs(attend(impl, window=2)(q, k, v)[0] - plain).max() > 1e-3


@pytest.mark.parametrize("impl", IMPLS)
def test_nothing_leaks_from_padding(impl):
  """NaN in every input and cotangent at segment 0, in all five results."""
  arrays = draw()
  clean = everything(
    attend(impl, q_segments_BT=SEGMENTS, kv_segments_BS=SEGMENTS),
    arrays,
    jnp.float32,
  )
  spoilt = [np.where(np.isin(np.arange(37), range(30, 37)).reshape(
    1, 37, *(1,) * (x.ndim - 2)), np.nan, x) for x in arrays]  # fmt: skip
  dirty = everything(
    attend(impl, q_segments_BT=SEGMENTS, kv_segments_BS=SEGMENTS),
    spoilt,
    jnp.float32,
    clean=False,
  )
  for name in NAMES:
    np.testing.assert_array_equal(clean[name], dirty[name])
  assert (
    not clean["o"][:, 30:].any() and np.isneginf(clean["lse"][:, 30:]).all()
  )


@pytest.mark.parametrize("impl", IMPLS)
def test_bitwise_the_same_from_run_to_run(impl):
  once, twice = (everything(attend(impl), draw(), jnp.bfloat16) for _ in "ab")
  for name in NAMES:
    np.testing.assert_array_equal(once[name], twice[name])


@pytest.mark.parametrize("impl", IMPLS)
def test_sinks_are_a_key_without_a_value(impl):
  q, k, v, *_ = single(draw())
  sinks = jnp.arange(4.0).reshape(2, 2) - 1
  o, lse = attend(impl, sinks=sinks)(q, k, v)
  bare, bare_lse = attend("reference")(q, k, v)
  wide = jnp.logaddexp(bare_lse, jnp.broadcast_to(sinks, bare_lse.shape))
  np.testing.assert_allclose(lse, wide, atol=2e-6)
  share = jnp.exp(bare_lse - wide)[..., None]
  np.testing.assert_allclose(o, bare * share, atol=2e-6)
  slope = jax.grad(
    lambda s: attend(impl, sinks=s)(q, k, v)[0].sum()
  )(sinks)  # fmt: skip
  expected = jax.grad(
    lambda s: (
      bare
      * jnp.exp(bare_lse - jnp.logaddexp(bare_lse, s[None, None]))[..., None]
    ).sum()
  )(sinks)
  np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)


def test_padding_has_no_gradient_for_sinks():
  q, k, v, do, dlse = single(draw())
  do, dlse = (x.at[:, 30:].set(jnp.nan) for x in (do, dlse))
  f = lambda s: attend(
    "xla", sinks=s, q_segments_BT=SEGMENTS, kv_segments_BS=SEGMENTS
  )(q, k, v)
  (o, lse), pull = jax.vjp(f, jnp.zeros((2, 2)))
  assert np.isneginf(lse[:, 30:]).all() and not o[:, 30:].any()
  assert np.isfinite(pull((do, dlse))[0]).all()


SMALL = Blocks(16, 16, 16, 16)


def test_no_array_of_queries_by_keys():
  """The chunked kernel never makes [T, S], in either pass."""
  q, k, v, *_ = single(draw(T=148, S=148))

  def text(**kw):
    total = lambda q: kernels.flash_attention(q, k, v, **kw).sum()
    return jax.jit(jax.grad(total)).lower(q).as_text()

  square = re.compile(r"x1[45]\dx1[45]\dx")  # padded to tiles or not
  assert not square.search(text(impl="xla", blocks=SMALL))
  assert square.search(text(impl="reference"))


def test_tiles_outside_of_the_mask_are_not_computed():
  """NaN in keys that no query of the row sees would reach a computed tile."""
  q, k, v, *_ = single(draw(T=32, S=64))
  k, v = (x.at[:, 32:].set(jnp.nan) for x in (k, v))
  seen = kernels.flash_attention(q, k, v, impl="xla", blocks=SMALL)
  assert np.isfinite(seen).all()
  total = lambda q: kernels.flash_attention(
    q, k, v, impl="xla", blocks=SMALL
  ).sum()
  assert np.isfinite(jax.grad(total)(q)).all()
  late = kernels.flash_attention(
    q, k, v, impl="xla", blocks=SMALL, q_offset=jnp.array([0, 1])
  )
  assert np.isnan(late[1]).any()
