"""Divergences between a student's and a teacher's next-token distributions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import kernels
from research.types import Dense, Sparse

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


def means(weights_BT: jax.Array, **values_BT: jax.Array) -> dict:
  """Returns metrics by name, each (sum, denominator) over the weights."""
  denominator = weights_BT.sum()
  total = lambda x_BT: ((weights_BT * x_BT).sum(), denominator)
  return {name: total(x_BT) for name, x_BT in values_BT.items()}


def of_tokens(
  said: Dense,
  targets_BT: jax.Array,
  *,
  temperature: float = 1.0,
  block: int = 512,
) -> tuple[jax.Array, jax.Array]:
  """Returns (logprobs_BT, entropy_BT): what is said of each token, in nats."""
  return kernels.token_logprobs(
    said.hidden_BTE,
    said.unembed_VE,
    targets_BT,
    temperature=temperature,
    softcap=said.softcap,
    block=block,
  )


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
  metrics = means(weights_BT, entropy=entropy_BT)
  return (weights_BT * gap_BT).sum(), weights_BT.sum(), metrics


def between(
  student: Dense,
  teacher: Dense,
  f: Divergence,
  *,
  temperature: float = 1.0,
  block: int = 512,
) -> jax.Array:
  """Returns `f(log q, log p)` of each token, [B, T], at `temperature`."""

  def one(logits_QV, teacher_QE):
    q_QV = jax.nn.log_softmax(logits_QV / temperature)
    return f(q_QV, teacher.log_probs(teacher_QE, temperature))

  return kernels.map_tokens(
    one,
    student.hidden_BTE,
    student.unembed_VE,
    teacher.hidden_BTE,
    block=block,
    softcap=student.softcap,
  )


def outside(q_QV: jax.Array, ids_QC: jax.Array) -> jax.Array:
  """Returns the log of each token's mass outside of its candidates.

  It is summed over the others, not subtracted from 1, which would lose a tail
  of less than 1e-7 altogether.
  """
  rows_Q1 = jnp.arange(len(q_QV))[:, None]
  others_QV = q_QV.at[rows_Q1, ids_QC].set(-jnp.inf)
  empty_Q = jnp.isneginf(others_QV).all(-1)
  # Where C = V there are no others: log 0, whose slope is 0 and not NaN.
  safe_QV = jnp.where(empty_Q[:, None], 0, others_QV)
  return jnp.where(empty_Q, -jnp.inf, jax.nn.logsumexp(safe_QV, -1))


def candidates(teacher: Dense, C: int, *, block: int = 512) -> Sparse:
  """Returns the C likeliest next tokens of each, likeliest first."""

  def f(logits_QV):
    p_QV = jax.nn.log_softmax(logits_QV)
    p_QC, ids_QC = jax.lax.top_k(p_QV, C)
    return ids_QC, p_QC, outside(p_QV, ids_QC)

  found = kernels.map_tokens(
    f,
    teacher.hidden_BTE,
    teacher.unembed_VE,
    block=block,
    softcap=teacher.softcap,
  )
  return Sparse(*found)
