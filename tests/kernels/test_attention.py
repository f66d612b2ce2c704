"""Attention on every implementation: one oracle, one set of promises.

The oracle is the reference in fp64, which test_reference.py holds against loops
in NumPy. A kernel may err at most twice as much as attention written plainly
in its inputs' dtype, for each output and each gradient.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import Blocks, mask
from tests.kernels.operands import (
  NAMES,
  attend,
  draw,
  everything,
  packed,
  single,
)

# The Pallas kernels have tests of their own beside this file, and share what
# test_properties.py asks.
IMPLS = ("xla",)


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
