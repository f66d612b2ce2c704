"""Generalised Jensen-Shannon divergence to a teacher (GKD, 2306.13649, eq. 1).

D_beta = beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, p
the teacher's and q the student's. Where beta is 0 or 1 the paper's limits
stand: D_beta / beta goes to KL(p || q), D_beta / (1 - beta) to KL(q || p).
"""

import jax

from research import divergence
from research.types import Dense


def loss(
  student: Dense,
  signal: Dense,
  weights_BT: jax.Array,
  *,
  beta: float = 0.5,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); at most ln 2 a token inside (0, 1).

  Raises:
    ValueError: beta is outside of [0, 1].
  """
  if not 0 <= beta <= 1:
    raise ValueError(f"jsd: beta is {beta}; it lies in [0, 1]")

  def f(q_QV, p_QV):
    if beta == 0:
      return divergence.kl(p_QV, q_QV)
    if beta == 1:
      return divergence.kl(q_QV, p_QV)
    m_QV = divergence.mix(beta, p_QV, q_QV)
    teacher_Q, student_Q = (divergence.kl(x, m_QV) for x in (p_QV, q_QV))
    return beta * teacher_Q + (1 - beta) * student_Q

  return divergence.total(f, student, signal, weights_BT, block=block)
