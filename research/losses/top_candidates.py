"""Forward KL to a teacher's C likeliest tokens and the mass of all others.

L = sum_t w_t [sum_c p_c (log p_c - log q_c) + p_tail (log p_tail - log q_tail)]
with the tail as one bucket on both sides. By the data-processing inequality it
is at least 0 and at most the KL over the vocabulary, to which it rises as C
grows; what the student puts outside of the candidates is never free, as it is
where both sides are renormalised over C.
"""

import jax
import jax.numpy as jnp

import kernels
from research import divergence
from research.types import Dense, Sparse


def loss(
  student: Dense, signal: Sparse, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); `outside` is the student's tail."""

  def f(logits_QV, ids_QC, p_QC, tail_Q):
    q_QV = jax.nn.log_softmax(logits_QV)
    q_QC = jnp.take_along_axis(q_QV, ids_QC, axis=-1)
    rest_Q = divergence.outside(q_QV, ids_QC)
    p_Qb = jnp.concatenate([p_QC, tail_Q[:, None]], -1)
    q_Qb = jnp.concatenate([q_QC, rest_Q[:, None]], -1)
    return divergence.kl(p_Qb, q_Qb), jnp.exp(rest_Q), divergence.entropy(q_QV)

  kl_BT, outside_BT, entropy_BT = kernels.map_tokens(
    f,
    student.hidden_BTE,
    student.unembed_VE,
    signal.ids_BTC,
    signal.logprobs_BTC,
    signal.tail_BT,
    block=block,
    softcap=student.softcap,
  )
  metrics = divergence.means(weights_BT, entropy=entropy_BT, outside=outside_BT)
  return (weights_BT * kl_BT).sum(), weights_BT.sum(), metrics
