"""Axis letters to mesh axes; the only maker of meshes."""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# The alphabet: one letter an axis, in names, einsums and partitions alike.
AXES = {
  "B": "batch",
  "T": "query time",
  "S": "key or cache time",
  "Q": "flat ragged tokens",
  "D": "model width",
  "E": "teacher's model width",
  "N": "layers",
  "K": "key-value heads",
  "G": "query heads per key-value head",
  "H": "head width",
  "F": "mlp width",
  "V": "vocabulary",
  "C": "teacher's candidates",
  "R": "LoRA rank",
  "P": "pages",
  "1": "broadcast",
}

MESH_AXES = ("data", "fsdp", "tensor", "context")

PARAMETERS = {
  "D": "fsdp",
  "R": "fsdp",  # where there is no D: half of an adapter has none
  "K": "tensor",
  "F": "tensor",
  "V": "tensor",
}
ACTIVATIONS = {
  "B": ("data", "fsdp"),
  "T": "context",
  "K": "tensor",
  "F": "tensor",
}


def make_mesh(
  *,
  data: int = 1,
  fsdp: int = 1,
  tensor: int = 1,
  context: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Returns a mesh of the first data*fsdp*tensor*context devices.

  `devices` are this machine's, or those of a topology to compile for.
  """
  devices = jax.devices() if devices is None else devices
  shape = (data, fsdp, tensor, context)
  size = data * fsdp * tensor * context
  if size > len(devices):
    raise ValueError(
      f"a mesh of {shape} {MESH_AXES} wants {size} devices, this machine has "
      f"{len(devices)}: shrink config.mesh"
    )
  return jax.make_mesh(
    shape,
    MESH_AXES,
    axis_types=(AxisType.Auto,) * 4,
    devices=devices[:size],
  )


@functools.cache
def _say_once(letters: str, axis: str, size: int, ways: int) -> None:
  logging.warning(
    "%s: an axis of %d does not divide over %s=%d; it falls back to the next "
    "rule or is replicated",
    letters,
    size,
    axis,
    ways,
  )


def _ways(mesh: Mesh, rule: str | tuple[str, ...]) -> int:
  names = (rule,) if isinstance(rule, str) else rule
  ways = 1
  for name in names:
    ways *= mesh.shape[name]
  return ways


def spec(
  mesh: Mesh,
  letters: str,
  shape: tuple[int, ...],
  rules: Mapping[str, str | tuple[str, ...]],
) -> PartitionSpec:
  """Returns the partition of an array whose axes are `letters`.

  Where the kv heads K do not divide, the query heads G of each take their mesh
  axis; any other axis that does not divide is replicated. Both are said once.
  """
  parts: list[Any] = []
  spare = None
  for letter, size in zip(letters, shape, strict=True):
    rule = rules.get(letter)
    if letter == "G" and spare is not None:
      rule, spare = spare, None
    if letter == "R" and "D" in letters:
      rule = None
    if rule is not None and size % _ways(mesh, rule):
      _say_once(letters, str(rule), size, _ways(mesh, rule))
      spare = rule if letter == "K" else spare
      rule = None
    parts.append(rule)
  return PartitionSpec(*parts)


def constrain(x: jax.Array, letters: str, mesh: Mesh | None) -> jax.Array:
  """Pins an activation's partition inside jit; the identity without a mesh."""
  if mesh is None:
    return x
  part = spec(mesh, letters, x.shape, ACTIVATIONS)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, part))


def of_parameters(boxed: Any, mesh: Mesh) -> Any:
  """Returns the NamedSharding of each parameter of a boxed (abstract) tree."""

  def one(box):
    letters = "".join(box.names)
    return NamedSharding(mesh, spec(mesh, letters, box.value.shape, PARAMETERS))

  return jax.tree.map(
    one, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )


def like_parameters(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
  """Returns shardings for `tree`, whose subtrees may mirror `params`.

  An optimizer's moments are laid out as their parameters; the rest (counts,
  keys) is replicated.
  """
  structure = jax.tree.structure(params)
  mirrors = lambda x: jax.tree.structure(x) == structure
  everywhere = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda x: (
      shardings if mirrors(x) else jax.tree.map(lambda _: everywhere, x)
    ),
    tree,
    is_leaf=mirrors,
  )


def place(batch: Any, mesh: Mesh | None) -> Any:
  """Puts a host's [B, T, ...] rows on its devices, split as ACTIVATIONS says.

  With several processes, each passes its own rows and the global array is
  their concatenation.
  """
  if mesh is None:
    return jax.tree.map(jax.numpy.asarray, batch)

  def one(x):
    rows = x.shape[0] * jax.process_count()
    shape = (rows, *x.shape[1:])
    letters = "BT" if x.ndim > 1 else "B"
    part = spec(mesh, letters, shape[:2], ACTIVATIONS)
    return jax.make_array_from_process_local_data(
      NamedSharding(mesh, part), x, shape
    )

  return jax.tree.map(one, batch)
