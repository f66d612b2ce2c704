"""Attention under a mesh: each device runs the kernel on its own part.

A Pallas kernel is one opaque operation to XLA's partitioner, so the split is
made here: rows and heads know nothing of one another; a sequence that is split
over `context` goes round the ring (kernels/ring.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

import kernels
from research import sharding

_TIME_WHOLE = {k: v for k, v in sharding.ACTIVATIONS.items() if k != "T"}


def over_itself(
  mesh: Mesh | None,
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segments_BT: jax.Array | None,
  window: Any,
  **how: Any,
) -> jax.Array:
  """Returns o_BTKGH of a causal sequence; `how` is flash_attention's."""
  ways = 1 if mesh is None else mesh.shape["context"]
  T = q_BTKGH.shape[1]
  ring = ways > 1 and T % ways == 0
  zigzag = ring and T % (2 * ways) == 0

  def attend(q_BTKGH, k_BTKH, v_BTKH, segments_BT, **limit):
    if not ring:
      segments = {"q_segments_BT": segments_BT, "kv_segments_BS": segments_BT}
      call = kernels.flash_attention
      return call(q_BTKGH, k_BTKH, v_BTKH, **segments, **limit, **how)
    operands = q_BTKGH, k_BTKH, v_BTKH, segments_BT
    if zigzag:  # two hops there and one back, for an even share of the work
      turn = lambda x: kernels.to_zigzag(x, "context")
      operands = jax.tree.map(turn, operands)
    *qkv, ids_BT = operands
    o_BTKGH = kernels.ring_attention(
      *qkv,
      axis_name="context",
      layout="zigzag" if zigzag else "contiguous",
      q_segments_BT=ids_BT,
      kv_segments_BS=ids_BT,
      **limit,
      **how,
    )
    return kernels.from_zigzag(o_BTKGH, "context") if zigzag else o_BTKGH

  rules = sharding.ACTIVATIONS if ring else _TIME_WHOLE
  operands = q_BTKGH, k_BTKH, v_BTKH, segments_BT
  letters = "BTKGH", "BTKH", "BTKH", "BT"
  return _split(mesh, attend, rules, letters, operands, window)


def over_cache(
  mesh: Mesh | None,
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  start_B: jax.Array,
  window: Any,
  **how: Any,
) -> jax.Array:
  """Returns o_BTKGH of queries at start_B + t over what a cache holds."""

  def attend(q_BTKGH, k_BSKH, v_BSKH, start_B, **limit):
    return kernels.flash_attention(
      q_BTKGH, k_BSKH, v_BSKH, q_offset=start_B, **limit, **how
    )

  operands = q_BTKGH, k_BSKH, v_BSKH, start_B
  letters = "BTKGH", "BSKH", "BSKH", "B"
  return _split(mesh, attend, _TIME_WHOLE, letters, operands, window)


def _split(
  mesh: Mesh | None,
  attend: Callable[..., jax.Array],
  rules: Mapping[str, Any],
  letters: tuple[str, ...],
  operands: tuple[Any, ...],
  window: Any,
) -> jax.Array:
  """Runs attend on each device's part; a window that is an int stays one."""
  if mesh is None:
    return attend(*operands, window=window)
  parts = tuple(
    PartitionSpec() if x is None else sharding.spec(mesh, names, x.shape, rules)
    for names, x in zip(letters, operands, strict=True)
  )
  # Pallas cannot say over which axes its outputs vary.
  cut = lambda f, in_specs: jax.shard_map(
    f, mesh=mesh, in_specs=in_specs, out_specs=parts[0], check_vma=False
  )
  if isinstance(window, jax.Array):
    traced = lambda window, *xs: attend(*xs, window=window)
    return cut(traced, (PartitionSpec(), *parts))(window, *operands)
  return cut(lambda *xs: attend(*xs, window=window), parts)(*operands)
