"""Forward KL to a teacher's whole distribution (Hinton et al. 2015).

L = sum_t w_t tau^2 KL(p^tau || q^tau), p the teacher's, q the student's.
"""

import jax

from research import divergence
from research.types import Dense


def loss(
  student: Dense,
  signal: Dense,
  weights_BT: jax.Array,
  *,
  temperature: float = 1.0,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); mode-covering, 0 only at p = q."""
  f = lambda q_QV, p_QV: temperature**2 * divergence.kl(p_QV, q_QV)
  return divergence.total(
    f, student, signal, weights_BT, temperature=temperature, block=block
  )
