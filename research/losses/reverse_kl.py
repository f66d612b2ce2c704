"""Reverse KL to a teacher's whole distribution (MiniLLM, 2306.08543).

L = sum_t w_t KL(q || p), exact over the vocabulary at each token. On prefixes
that the student sampled itself this is on-policy distillation with discount 0:
every token answers for itself alone.
"""

import jax
import jax.numpy as jnp

import kernels
from research.types import Dense


def loss(
  student: Dense, signal: Dense, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); mode-seeking, 0 only at q = p."""

  def f(logits_QV, teacher_QE):
    q_QV = jax.nn.log_softmax(logits_QV)
    p_QV = signal.log_probs(teacher_QE)
    weight_QV = jnp.exp(q_QV)
    gap_QV = jnp.where(weight_QV > 0, q_QV - p_QV, 0)
    entropy_Q = -jnp.where(weight_QV > 0, weight_QV * q_QV, 0).sum(-1)
    return (weight_QV * gap_QV).sum(-1), entropy_Q

  kl_BT, entropy_BT = kernels.map_tokens(
    f,
    student.hidden_BTE,
    student.unembed_VE,
    signal.hidden_BTE,
    block=block,
    softcap=student.softcap,
  )
  denominator = weights_BT.sum()
  entropy = ((weights_BT * entropy_BT).sum(), denominator)
  return (weights_BT * kl_BT).sum(), denominator, {"entropy": entropy}
