"""Values and gradients of every loss against NumPy in fp64, in both widths."""

import functools

import jax
import numpy as np
import pytest

from tests.research.losses.documents import (
  MODULES,
  learned,
  packed,
  told,
  unembeddings,
)
from tests.research.losses.reference import REFERENCES

ROWS = [[0, 2], [1]]  # of 5 + 5 and 8 tokens, the rest is garbage
CASES = [
  *((name, {}) for name in MODULES),
  ("aligned_spans", {"temperature": 1.0}),
  ("attention_relations", {"heads": 2, "share": 0.3}),
  ("forward_kl", {"temperature": 2.0}),
  ("hidden_relations", {"heads": 2, "share": 0.3}),
  *(("jsd", {"beta": beta}) for beta in (0.0, 0.1, 1.0)),
  ("minillm", {"normalize": False}),
  ("skewed_kl", {"alpha": 0.2, "reverse": True}),
  ("universal", {"tokens": 5}),
  ("universal", {"tokens": 11}),
]
BOUNDS = {np.float64: 1e-10, np.float32: 1e-5}


def held(dtype, tokens=8):
  """(rows, unembedding, the teacher's over `tokens`), rounded to a width."""
  change = lambda x: x.astype(dtype) if x.dtype.kind == "f" else x
  return jax.tree.map(change, (packed(ROWS, 11), *unembeddings(tokens)))


@functools.cache
def found(name, dtype, softcap=None, tokens=8, **args):
  """A loss's sum, denominator and gradients."""
  rows, unembed, theirs = held(dtype, tokens)

  @jax.jit
  def f(own, rows):
    law = {"softcap": softcap} | args
    total, count, _ = told(MODULES[name], own, rows, theirs, **law)
    return total, count

  with jax.enable_x64(dtype is np.float64):
    own = learned(rows, unembed)
    pair, slopes = jax.value_and_grad(f, has_aux=True)(own, rows)
  return *pair, slopes


def expected(name, dtype, softcap=None, tokens=8, **args):
  """The reference's own, from the same rounded numbers."""
  wide = lambda x: x.astype(float) if x.dtype.kind == "f" else x
  rows, unembed, theirs = jax.tree.map(wide, held(dtype, tokens))
  z, p = rows["hidden"] @ unembed.T, rows["teacher"] @ theirs.T
  steep = 1.0
  if softcap is not None:
    z, p = (softcap * np.tanh(x / softcap) for x in (z, p))
    steep = 1 - (z / softcap) ** 2
  total, count, slope, features = REFERENCES[name](z, p, rows, **args)
  slope = steep * slope
  slopes = {
    "hidden": slope @ unembed,
    "features": 0 * rows["features"] if features is None else features,
    "unembed": np.einsum("BTV,BTE->VE", slope, rows["hidden"]),
  }
  return total, count, slopes


def assert_equal(name, dtype, **args):
  bound = BOUNDS[dtype]
  *sums, slopes = found(name, dtype, **args)
  *known_sums, known = expected(name, dtype, **args)
  assert sums[0].dtype == slopes["unembed"].dtype == dtype
  np.testing.assert_allclose(sums, known_sums, rtol=bound)
  for x, y in known.items():
    atol = bound * np.abs(y).max()
    np.testing.assert_allclose(slopes[x], y, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda x: x.__name__)
@pytest.mark.parametrize("name, args", CASES, ids=str)
def test_a_loss_and_its_gradients_equal_numpy(name, args, dtype):
  assert_equal(name, dtype, **args)


@pytest.mark.parametrize("name", MODULES)
def test_capped_logits_equal_numpy(name):
  assert_equal(name, np.float64, softcap=3.0)


@pytest.mark.parametrize("name", MODULES)
def test_control_a_slope_a_billionth_off_is_noticed(name, monkeypatch):
  honest = REFERENCES[name]

  def off(*held, **args):
    total, count, slope, features = honest(*held, **args)
    return total, count, slope * (1 + 1e-9), features

  monkeypatch.setitem(REFERENCES, name, off)
  with pytest.raises(AssertionError, match="Not equal"):
    assert_equal(name, np.float64)
