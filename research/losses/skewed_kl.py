"""Skewed KL: one side is mixed into the other first (DistiLLM, 2402.03898).

Forward, KL(p || alpha p + (1 - alpha) q); in reverse, KL(q || alpha q +
(1 - alpha) p); p the teacher's and q the student's. The mixture bounds the
gradient where the other side has next to no mass.
"""

import jax

from research import divergence
from research.types import Dense


def loss(
  student: Dense,
  signal: Dense,
  weights_BT: jax.Array,
  *,
  alpha: float = 0.1,
  reverse: bool = False,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); at most -ln alpha a token.

  Raises:
    ValueError: alpha is outside of (0, 1).
  """
  if not 0 < alpha < 1:
    raise ValueError(f"skewed_kl: alpha is {alpha}; it lies between 0 and 1")

  def f(q_QV, p_QV):
    a_QV, b_QV = (q_QV, p_QV) if reverse else (p_QV, q_QV)
    return divergence.kl(a_QV, divergence.mix(alpha, a_QV, b_QV))

  return divergence.total(f, student, signal, weights_BT, block=block)
