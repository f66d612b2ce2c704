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


def ends(segments_BT: jax.Array) -> jax.Array:
  """Returns a boolean [B, T], true on each segment's last token alone."""
  other_BT = segments_BT != jnp.roll(segments_BT, -1, axis=1)
  return other_BT.at[:, -1].set(True) & (segments_BT > 0)


def each(x_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
  """Returns sums_BT whose column k is row b's sum of x over segment k + 1."""
  T = x_BT.shape[1]
  one = lambda x, ids: jax.ops.segment_sum(x, ids, num_segments=T + 1)
  return jax.vmap(one)(x_BT, segments_BT)[:, 1:]


def recur(
  a_BT: jax.Array, b_BT: jax.Array, segments_BT: jax.Array
) -> jax.Array:
  """Returns x_t = b_t + a_t x_{t+1}, from each segment's last token back."""

  def join(behind, here):
    (a, b), (c, d) = behind, here
    return a * c, d + c * b

  inner_BT = jnp.where(ends(segments_BT) | (segments_BT == 0), 0, a_BT)
  pairs = (inner_BT, b_BT)
  return jax.lax.associative_scan(join, pairs, reverse=True, axis=1)[1]


def later(x_BT: jax.Array, segments_BT: jax.Array) -> jax.Array:
  """Returns each token's sum of x over the tokens behind it in its segment."""
  sums_BT = recur(jnp.ones_like(x_BT), x_BT, segments_BT)
  return jnp.where(segments_BT > 0, sums_BT - x_BT, 0)
