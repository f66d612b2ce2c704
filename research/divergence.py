"""Divergences between a student's and a teacher's next-token distributions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import kernels
from research.types import Dense

# (log q_QV, log p_QV) -> a number a token
Divergence = Callable[[jax.Array, jax.Array], jax.Array]


def kl(a_QV: jax.Array, b_QV: jax.Array) -> jax.Array:
  """Returns KL(a || b) of each token, from log-probabilities, in nats."""
  weight_QV = jnp.exp(a_QV)
  gap_QV = jnp.where(weight_QV > 0, a_QV - b_QV, 0)
  return (weight_QV * gap_QV).sum(-1)


def mix(share: float, a_QV: jax.Array, b_QV: jax.Array) -> jax.Array:
  """Returns log(share * a + (1 - share) * b), from log-probabilities."""
  return jnp.logaddexp(jnp.log(share) + a_QV, jnp.log1p(-share) + b_QV)


def entropy(q_QV: jax.Array) -> jax.Array:
  """Returns the entropy of each token, in nats."""
  weight_QV = jnp.exp(q_QV)
  return -(weight_QV * jnp.where(weight_QV > 0, q_QV, 0)).sum(-1)


def total(
  divergence: Divergence,
  student: Dense,
  teacher: Dense,
  weights_BT: jax.Array,
  *,
  temperature: float = 1.0,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics) of `divergence(log q, log p)`.

  Both distributions are taken at `temperature`; the metric `entropy` is the
  student's at 1.
  """

  def f(logits_QV, teacher_QE):
    q_QV = jax.nn.log_softmax(logits_QV / temperature)
    p_QV = teacher.log_probs(teacher_QE, temperature)
    plain_QV = jax.nn.log_softmax(logits_QV)
    return divergence(q_QV, p_QV), entropy(plain_QV)

  gap_BT, entropy_BT = kernels.map_tokens(
    f,
    student.hidden_BTE,
    student.unembed_VE,
    teacher.hidden_BTE,
    block=block,
    softcap=student.softcap,
  )
  denominator = weights_BT.sum()
  metrics = {"entropy": ((weights_BT * entropy_BT).sum(), denominator)}
  return (weights_BT * gap_BT).sum(), denominator, metrics
