"""Sums over the segments of packed rows, repeated on their tokens."""

import jax
import jax.numpy as jnp


def next_tokens(tokens_BT: jax.Array) -> jax.Array:
  """Returns targets_BT: token `t+1` at `t`; the last column carries no meaning.

  Every weight there is 0: a row's last token has no successor.
  """
  return jnp.roll(tokens_BT, -1, axis=1)


def starts(positions_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
  """Returns a boolean [B, T], true on each segment's first token alone."""
  return (positions_BT == 0) & (segments_BT > 0)


def total(x_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
  """Returns each token's sum of x over its own segment."""
  B, T = x_BT.shape
  rows_B1 = jnp.arange(B)[:, None]
  ids_BT = rows_B1 * (T + 1) + segments_BT
  sums = jax.ops.segment_sum(
    x_BT.reshape(-1), ids_BT.reshape(-1), num_segments=B * (T + 1)
  )
  return jnp.where(segments_BT > 0, sums[ids_BT], 0)


def later(x_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
  """Returns each token's sum of x over the tokens behind it in its segment."""

  def add(behind, here):
    (a, a_ends), (b, b_ends) = behind, here
    return jnp.where(b_ends, b, a + b), a_ends | b_ends

  last_BT = segments_BT != jnp.roll(segments_BT, -1, axis=1)
  last_BT = last_BT.at[:, -1].set(True)
  sums_BT, _ = jax.lax.associative_scan(
    add, (x_BT, last_BT), reverse=True, axis=1
  )
  return jnp.where(segments_BT > 0, sums_BT - x_BT, 0)
