"""How operands lie: whole tiles, and all KV heads of a token side by side.

A cache [B, S, K, H] is [B, S, K * H] for free, while a product head by head
makes compilers lay it out anew. With each query in its own head's share of the
features one product serves all heads, for K times the operations, of which
decoding has few.
"""

from typing import Any

import jax
import jax.numpy as jnp


def pad(x: jax.Array, axis: int, multiple: int, **how: Any) -> jax.Array:
  """Pads an axis at its end to a multiple, as `jnp.pad` does."""
  widths = [(0, 0)] * x.ndim
  widths[axis] = (0, -x.shape[axis] % multiple)
  return jnp.pad(x, widths, **how) if widths[axis][1] else x


def spread(q_BKGH: jax.Array) -> jax.Array:
  """Returns the queries as rows [B, K * G, K * H], 0 in the others' shares."""
  B, K, G, H = q_BKGH.shape
  own = jnp.eye(K, dtype=bool)[None, :, None, :, None]
  return jnp.where(own, q_BKGH[:, :, :, None], 0).reshape(B, K * G, K * H)


def own(o: jax.Array, K: int) -> jax.Array:
  """Returns [..., K, G, H]: of rows [..., K * G, K * H] their own shares."""
  *lead, rows, features = o.shape
  o = o.reshape(*lead, K, rows // K, K, features // K)
  return jnp.stack([o[..., i, :, i, :] for i in range(K)], -3)
