"""A row's keys in parts that are read at the same time: FlashDecoding.

Which keys a part has, and how attention over the parts is joined.
"""

import jax
import jax.numpy as jnp


def bounds(
  first_B: jax.Array, end_B: jax.Array, splits: int, tile: int
) -> tuple[jax.Array, jax.Array]:
  """Returns (first, end), int32 [splits, B], of even parts of [first, end).

  Parts are whole tiles from `first_B` on, but for the last one that has any.
  """
  step_B = -(-(end_B - first_B) // splits)
  step_B = (step_B + tile - 1) // tile * tile
  first_sB = first_B[None] + jnp.arange(splits)[:, None] * step_B[None]
  first_sB = jnp.minimum(first_sB, end_B[None])
  end_sB = jnp.minimum(first_sB + step_B[None], end_B[None])
  return first_sB.astype(jnp.int32), end_sB.astype(jnp.int32)


def join(o: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns `merge` of all parts, [splits, ...], at once; no part is NaN."""
  high = lse.max(0)
  high = jnp.where(jnp.isneginf(high), 0, high)
  weight = jnp.exp(lse - high[None])
  total = weight.sum(0)
  some = jnp.where(total == 0, 1, total)
  o = (weight[..., None] * o).sum(0) / some[..., None]
  return o, jnp.where(total == 0, -jnp.inf, high + jnp.log(some))
