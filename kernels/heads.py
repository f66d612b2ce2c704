"""All KV heads in one product: each query in its own head's share of features.

A cache [B, S, K, H] is [B, S, K * H] for free, while a product head by head
makes compilers lay it out anew. The price is K times the operations, of which
decoding has few.
"""

import jax
import jax.numpy as jnp


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
