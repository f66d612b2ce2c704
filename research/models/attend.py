"""Attention under a mesh: each device runs the kernel on its own part.

A Pallas kernel is one opaque operation to XLA's partitioner, so the split is
made here: rows and heads know nothing of one another; a sequence that is split
over `context` goes round the ring (kernels/ring.py).
"""

import functools
import logging
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
  """Returns o_BTKGH of a causal sequence; `how` is flash_attention's.

  The ring wants a T that 2 * `context` divides: it is uneven where only
  `context` does, and elsewhere each device does the whole; both are said once.
  """
  ways = 1 if mesh is None else mesh.shape["context"]
  T = q_BTKGH.shape[1]
  ring = ways > 1 and T % ways == 0
  if ways > 1 and T % (2 * ways):
    _say_once(T, ways)

  attend = functools.partial(_round if ring else _alone, **how)
  rules = sharding.ACTIVATIONS if ring else _TIME_WHOLE
  operands = q_BTKGH, k_BTKH, v_BTKH, segments_BT
  letters = "BTKGH", "BTKH", "BTKH", "BT"
  return _split(mesh, attend, rules, letters, operands, window)


def _alone(q_BTKGH, k_BTKH, v_BTKH, segments_BT, **how) -> jax.Array:
  """A device that holds whole sequences."""
  segments = {"q_segments_BT": segments_BT, "kv_segments_BS": segments_BT}
  return kernels.flash_attention(q_BTKGH, k_BTKH, v_BTKH, **segments, **how)


def _round(q_BTKGH, k_BTKH, v_BTKH, segments_BT, **how) -> jax.Array:
  """A device that holds a part of each: two hops there, and two back."""
  operands = q_BTKGH, k_BTKH, v_BTKH, segments_BT
  zigzag = q_BTKGH.shape[1] % 2 == 0
  if zigzag:
    turn = lambda x: kernels.to_zigzag(x, "context")
    operands = jax.tree.map(turn, operands)
  *qkv, ids_BT = operands
  o_BTKGH = kernels.ring_attention(
    *qkv,
    axis_name="context",
    layout="zigzag" if zigzag else "contiguous",
    q_segments_BT=ids_BT,
    kv_segments_BS=ids_BT,
    **how,
  )
  return kernels.from_zigzag(o_BTKGH, "context") if zigzag else o_BTKGH


def over_cache(
  mesh: Mesh | None,
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  start_B: jax.Array,
  window: Any,
  **how: Any,
) -> jax.Array:
  """Returns o_BTKGH of queries at start_B + t over what a cache holds.

  A cache is not split over `context`: its devices all do the same.
  """

  def attend(q_BTKGH, k_BSKH, v_BSKH, start_B, **limit):
    if q_BTKGH.shape[1] > 1:
      return kernels.flash_attention(
        q_BTKGH, k_BSKH, v_BSKH, q_offset=start_B, **limit, **how
      )
    o_BKGH = kernels.decode_attention(
      q_BTKGH[:, 0], k_BSKH, v_BSKH, start_B + 1, **limit, **how
    )
    return o_BKGH[:, None]

  operands = q_BTKGH, k_BSKH, v_BSKH, start_B
  letters = "BTKGH", "BSKH", "BSKH", "B"
  return _split(mesh, attend, _TIME_WHOLE, letters, operands, window)


@functools.cache
def _say_once(T: int, ways: int) -> None:
  how = "one after another" if T % ways == 0 else "whole on each device"
  logging.warning(
    "%d tokens do not divide over 2 x context=%d: attention runs %s; make the "
    "length a multiple of %d",
    T,
    ways,
    how,
    2 * ways,
  )


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
