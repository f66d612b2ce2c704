"""What the TPU kernels share: products, and an online softmax over lanes.

A row's statistic is kept in all 128 lanes, so that it meets the row's scores
without moving between lanes. Scores are in base 2, what exp2 takes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LANES = 128
VMEM_BYTES = 56 * 2**20  # of VMEM: v5p has 64 MiB, the others 128
LOG2E = math.log2(math.e)
# A hidden score: finite, so that no row makes a NaN.
NEVER = float(-0.7 * np.finfo(np.float32).max)


def dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
  """Returns the product over one axis of each matrix, in fp32."""
  exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jax.lax.dot_general(
    a,
    b,
    (((axes[0],), (axes[1],)), ((), ())),
    preferred_element_type=jnp.float32,
    precision=exact,
  )


def across(x: jax.Array, n: int) -> jax.Array:
  """Returns [rows, n] of x [rows, LANES], whose lanes are all the same."""
  return x[:, :n] if n <= LANES else jnp.tile(x, (1, -(-n // LANES)))[:, :n]


def accumulate(state: Any, s: jax.Array, v: jax.Array, axis: int) -> None:
  """Takes scores (base 2) and values into an online softmax.

  `state` is the running maximum and sum, the same in all lanes, and p v, each
  a reference of [rows, ...]; `axis` of v is that of the keys.
  """
  m_ref, l_ref, acc_ref = state
  m = m_ref[...]
  new = jnp.maximum(m, s.max(1, keepdims=True))
  p, fade = jnp.exp2(s - across(new, s.shape[1])), jnp.exp2(m - new)
  m_ref[...] = new
  l_ref[...] = l_ref[...] * fade + p.sum(1, keepdims=True)
  add = dot(p.astype(v.dtype), v, (1, axis))
  acc_ref[...] = acc_ref[...] * across(fade, add.shape[1]) + add
