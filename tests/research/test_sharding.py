"""Letters to mesh axes, and what happens where they do not divide."""

import logging

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from research import sharding
from research.models import presets, transformer


def test_specs():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  part = lambda letters, shape, rules: sharding.spec(
    mesh, letters, shape, rules
  )
  q = part("DKGH", (16, 2, 3, 8), sharding.PARAMETERS)
  assert q == PartitionSpec("fsdp", "tensor", None, None)
  x = part("BTD", (8, 6, 16), sharding.ACTIVATIONS)
  assert x == PartitionSpec(("data", "fsdp"), "context", None)


def test_kv_heads_that_do_not_divide_leave_it_to_the_query_heads(caplog):
  sharding._say_once.cache_clear()
  mesh = sharding.make_mesh(tensor=4)
  with caplog.at_level(logging.WARNING):
    for _ in range(2):
      part = sharding.spec(mesh, "DKGH", (16, 2, 8, 8), sharding.PARAMETERS)
  assert part == PartitionSpec("fsdp", None, "tensor", None)
  assert len(caplog.records) == 1  # said once
  odd = sharding.spec(mesh, "DKGH", (16, 2, 7, 8), sharding.PARAMETERS)
  assert odd == PartitionSpec("fsdp", None, None, None)


def test_adapters_are_split_as_far_as_their_matrices():
  """A rank takes the width's axis where there is no width beside it."""
  mesh = sharding.make_mesh(fsdp=4, tensor=2)
  part = lambda letters, shape: sharding.spec(
    mesh, letters, shape, sharding.PARAMETERS
  )
  assert part("DR", (16, 8)) == PartitionSpec("fsdp", None)
  assert part("RF", (8, 32)) == PartitionSpec("fsdp", "tensor")
  assert part("RD", (8, 16)) == PartitionSpec(None, "fsdp")
  assert part("RF", (6, 32)) == PartitionSpec(None, "tensor")


def test_a_mesh_larger_than_the_machine_is_refused():
  with pytest.raises(ValueError, match=r"shrink config\.mesh"):
    sharding.make_mesh(data=64)


def test_every_parameter_has_its_letters():
  mesh = sharding.make_mesh(fsdp=2, tensor=2)
  boxed = transformer.abstract(presets.make("gemma3_1b"))
  specs = sharding.of_parameters(boxed, mesh)
  layers = specs["layers"]
  assert layers["mlp"]["gate_DF"].spec == PartitionSpec(None, "fsdp", "tensor")
  assert layers["attention"]["q_DKGH"].spec == PartitionSpec(
    None, "fsdp", None, "tensor", None
  )  # one kv head: its query heads are split
  assert specs["embed_VD"].spec == PartitionSpec("tensor", "fsdp")


def test_rows_are_placed_where_the_activations_are():
  mesh = sharding.make_mesh(data=2, fsdp=2)
  rows = np.arange(32).reshape(8, 4)
  placed = sharding.place(rows, mesh)
  np.testing.assert_array_equal(placed, rows)
  assert placed.addressable_shards[0].data.shape == (2, 4)
  alone = sharding.place(rows, None)
  assert isinstance(alone, jax.Array)
