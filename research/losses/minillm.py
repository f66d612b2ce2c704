"""Reverse KL of whole answers, as a policy gradient (MiniLLM, 2306.08543).

On answers y that the student q sampled, with l_t = log p(y_t) - log q(y_t), the
gradient of KL(q || p) over whole answers has two parts:

    sum_t grad KL(q_t || p_t)            what this token does, exact
    - sum_t R_{t+1} grad log q(y_t)      what those behind it do

with R_t = sum_{t' >= t} l_t'. The paper divides R_{t+1} by how many tokens it
sums, which bounds it and favours no length; so does `normalize`.
"""

import jax
import jax.numpy as jnp

import kernels
from research import divergence, segments
from research.types import Dense, Written


def loss(
  student: Dense,
  signal: Written,
  weights_BT: jax.Array,
  *,
  normalize: bool = True,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); the metric `kl` is KL(q_t || p_t).

  Weights are 1 on tokens that the student sampled and 0 elsewhere.
  """

  def f(logits_QV, teacher_QE, targets_Q):
    q_QV = jax.nn.log_softmax(logits_QV)
    p_QV = signal.teacher.log_probs(teacher_QE)
    pick = lambda x: jnp.take_along_axis(x, targets_Q[:, None], 1)[:, 0]
    own, other = pick(q_QV), pick(p_QV)
    return divergence.kl(q_QV, p_QV), own, other, divergence.entropy(q_QV)

  kl_BT, q_BT, p_BT, entropy_BT = kernels.map_tokens(
    f,
    student.hidden_BTE,
    student.unembed_VE,
    signal.teacher.hidden_BTE,
    signal.targets_BT,
    block=block,
    softcap=student.softcap,
  )
  later = lambda x_BT: segments.later(weights_BT * x_BT, signal.segments_BT)
  return_BT = later(jax.lax.stop_gradient(p_BT - q_BT))
  if normalize:
    return_BT /= jnp.maximum(later(jnp.ones_like(q_BT)), 1)
  total = (weights_BT * (kl_BT - return_BT * q_BT)).sum()
  metrics = divergence.means(weights_BT, kl=kl_BT, entropy=entropy_BT)
  return total, weights_BT.sum(), metrics
