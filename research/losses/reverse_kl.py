"""Reverse KL to a teacher's whole distribution (MiniLLM, 2306.08543).

L = sum_t w_t KL(q || p), exact over the vocabulary at each token. On prefixes
that the student sampled itself this is on-policy distillation with discount 0:
every token answers for itself alone.
"""

import jax

from research import divergence
from research.types import Dense


def loss(
  student: Dense, signal: Dense, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); mode-seeking, 0 only at q = p."""
  f = lambda q_QV, p_QV: divergence.kl(q_QV, p_QV)
  return divergence.total(f, student, signal, weights_BT, block=block)
