"""A row's keys in parts that are read at the same time: FlashDecoding."""

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
