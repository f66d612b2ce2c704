"""A softmax over parts of the keys: its pieces, and how parts are joined."""

import jax
import jax.numpy as jnp


def capped(s: jax.Array, softcap: float | None) -> jax.Array:
  """Returns softcap * tanh(s / softcap), or s without a softcap."""
  return s if softcap is None else softcap * jnp.tanh(s / softcap)


def finite(high: jax.Array) -> jax.Array:
  """Returns a maximum of scores to subtract: 0 where nothing is seen."""
  return jnp.where(jnp.isneginf(high), 0, high)


def some(total: jax.Array) -> jax.Array:
  """Returns a sum of weights to divide by: 1 where nothing is seen."""
  return jnp.where(total == 0, 1, total)


def log_total(high: jax.Array, total: jax.Array) -> jax.Array:
  """Returns lse = high + log(total): -inf where nothing is seen."""
  return jnp.where(total == 0, -jnp.inf, high + jnp.log(some(total)))


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
  high = finite(jax.lax.stop_gradient(jnp.maximum(lse1, lse2)))
  w1, w2 = _weight(lse1, high), _weight(lse2, high)
  total = w1 + w2
  part = lambda w, o: (w / some(total))[..., None] * o.astype(wide)
  o = (part(w1, o1) + part(w2, o2)).astype(o1.dtype)
  return o, log_total(high, total)


def _weight(lse: jax.Array, high: jax.Array) -> jax.Array:
  """exp(lse - high), whose gradient at lse = -inf is 0 and not 0 * inf."""
  empty = jnp.isneginf(lse)
  return jnp.where(empty, 0, jnp.exp(jnp.where(empty, 0, lse) - high))


def join(o: jax.Array, lse: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns `merge` of all parts, [splits, ...], at once; without gradients."""
  high = finite(lse.max(0))
  weight = jnp.exp(lse - high[None])
  total = weight.sum(0)
  o = (weight[..., None] * o).sum(0) / some(total)[..., None]
  return o, log_total(high, total)
