"""Forward KL to a teacher's whole distribution (Hinton et al. 2015).

L = sum_t w_t tau^2 KL(p^tau || q^tau), p the teacher's, q the student's.
"""

import jax
import jax.numpy as jnp

import kernels
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

  def f(logits_QV, teacher_QE):
    q_QV = jax.nn.log_softmax(logits_QV / temperature)
    p_QV = signal.log_probs(teacher_QE, temperature)
    weight_QV = jnp.exp(p_QV)
    gap_QV = jnp.where(weight_QV > 0, p_QV - q_QV, 0)
    return temperature**2 * (weight_QV * gap_QV).sum(-1)

  kl_BT = kernels.map_tokens(
    f,
    student.hidden_BTE,
    student.unembed_VE,
    signal.hidden_BTE,
    block=block,
    softcap=student.softcap,
  )
  return (weights_BT * kl_BT).sum(), weights_BT.sum(), {}
