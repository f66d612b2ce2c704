"""Total variation to a teacher's distribution (f-distill, 2307.15190).

L = sum_t w_t 1/2 sum_v |p(v) - q(v)|: symmetric, between 0 and 1 a token.
"""

import jax
import jax.numpy as jnp

from research import divergence
from research.types import Dense


def loss(
  student: Dense, signal: Dense, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); 0 only at q = p."""
  f = lambda q_QV, p_QV: jnp.abs(jnp.exp(p_QV) - jnp.exp(q_QV)).sum(-1) / 2
  return divergence.total(f, student, signal, weights_BT, block=block)
