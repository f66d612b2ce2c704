"""Every loss is the same packed, padded, in parts and on eight devices.

In fp64, values, metrics and gradients: what a document costs, and teaches, does
not depend on where it lies.
"""

import functools

import jax
import numpy as np
import pytest

from research import sharding
from tests.research.losses.documents import (
  LENGTHS,
  MODULES,
  learned,
  packed,
  told,
  unembeddings,
)

ROWS = [[0, 1], [2, 3, 4], [5, 6], [7], [], [], [], []]


@functools.cache
def program(name, block):
  """(rows, student, teacher) -> sum, denominator, metrics and gradients."""

  def one(rows, unembed, theirs):
    def f(own):
      total, *others = told(MODULES[name], own, rows, theirs, block=block)
      return total, others

    own = learned(rows, unembed)
    (total, others), slopes = jax.value_and_grad(f, has_aux=True)(own)
    return {"sums": (total, others)} | slopes

  return jax.jit(one)


def found(name, *batches, mesh=None, block=512):
  """What a loss says of all batches together; slopes lie document by document.

  Where there is no document, what is held has no slope.
  """
  order = np.concatenate([rows["order"].reshape(-1) for rows in batches])

  def join(path, *parts):
    if path[0].key not in ("hidden", "features"):
      return sum(parts)
    x = np.concatenate([x.reshape(-1, *x.shape[2:]) for x in parts])
    assert not x[order < 0].any()
    return x[order >= 0][np.argsort(order[order >= 0])]

  with jax.enable_x64(True):
    f = program(name, block)
    said = [f(sharding.place(x, mesh), *unembeddings()) for x in batches]
    return jax.tree_util.tree_map_with_path(join, *jax.device_get(said))


@functools.cache
def alone(name):
  """Every document in a row of its own, which the longest fill."""
  return found(name, packed([[i] for i in range(8)], max(LENGTHS)))


def together(name):
  return found(name, packed(ROWS, 20, left=1))


def padded_in_parts(name):
  rows = packed([[i] for i in range(8)] + [[]] * 2, 11, left=2)
  return found(name, *({k: x[i::5] for k, x in rows.items()} for i in range(5)))


def on_devices(name, **axes):
  """Some tokens of all rows at a time, each device its own rows."""
  mesh = sharding.make_mesh(**axes)
  return found(name, packed(ROWS, 20, left=1), mesh=mesh, block=64)


def on_eight_devices(name):
  return on_devices(name, data=4, fsdp=2)


def along_time(name):
  return on_devices(name, data=2, fsdp=2, context=2)


def assert_same(one, two):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * (1 + np.abs(a).max()))


@pytest.mark.parametrize(
  "layout",
  [
    together,
    padded_in_parts,
    on_eight_devices,
    pytest.param(along_time, marks=pytest.mark.slow),
  ],
)
@pytest.mark.parametrize("name", MODULES)
def test_a_loss_does_not_depend_on_the_layout(name, layout):
  one = alone(name)
  assert_same(one, layout(name))
  assert all(np.abs(one[x]).max() > 1e-3 for x in ("hidden", "unembed"))


def test_each_device_has_a_row():
  mesh = sharding.make_mesh(data=4, fsdp=2)
  rows = sharding.place(packed(ROWS, 20, left=1), mesh)
  held = {name: x.addressable_shards for name, x in rows.items()}
  assert all({s.data.shape[:2] for s in x} == {(1, 20)} for x in held.values())


@pytest.mark.parametrize(
  "name",
  ["aligned_spans", "attention_relations", "hidden_relations", "minillm"],
)
def test_control_a_neighbour_that_is_heard_is_noticed(name):
  """Packed rows that say nothing of where a document ends."""
  rows = packed(ROWS, 20, left=1)
  rows["segments"] = (rows["segments"] > 0).astype(int)
  rows["spans"] = np.minimum(rows["spans"], 2)
  with pytest.raises(AssertionError, match="Not equal"):
    assert_same(alone(name), found(name, rows))
