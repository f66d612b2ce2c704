"""Attention over parts of the keys, joined to attention over all of them."""

import jax
import jax.numpy as jnp


def merge(
  o1: jax.Array, lse1: jax.Array, o2: jax.Array, lse2: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns (o, lse) over the keys of both parts.

  o is [..., H] and lse [...], the natural log of the sum of exponentials; a
  part without keys has o = 0 and lse = -inf. o keeps the dtype of `o1`; lse and
  the weights are fp32 or wider. Differentiable, also where both are empty.

  Raises:
    ValueError: the shapes do not agree.
  """
  if not o1.shape[:-1] == lse1.shape == lse2.shape or o1.shape != o2.shape:
    raise ValueError(
      f"o1 {o1.shape} and o2 {o2.shape} must agree, and lse1 {lse1.shape} and "
      f"lse2 {lse2.shape} be the same without H"
    )
  wide = jnp.promote_types(jnp.float32, lse1.dtype)
  lse1, lse2 = lse1.astype(wide), lse2.astype(wide)
  high = jax.lax.stop_gradient(jnp.maximum(lse1, lse2))
  high = jnp.where(jnp.isneginf(high), 0, high)
  w1, w2 = _weight(lse1, high), _weight(lse2, high)
  total = w1 + w2
  some = jnp.where(total == 0, 1, total)
  part = lambda w, o: (w / some)[..., None] * o.astype(wide)
  lse = jnp.where(total == 0, -jnp.inf, high + jnp.log(some))
  return (part(w1, o1) + part(w2, o2)).astype(o1.dtype), lse


def _weight(lse: jax.Array, high: jax.Array) -> jax.Array:
  """exp(lse - high), whose gradient at lse = -inf is 0 and not 0 * inf."""
  empty = jnp.isneginf(lse)
  return jnp.where(empty, 0, jnp.exp(jnp.where(empty, 0, lse) - high))
