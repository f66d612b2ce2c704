"""How the tokens of a row relate to one another, in a student and a teacher."""

import math

import jax
import jax.numpy as jnp

from research import divergence
from research.types import Dense


def _split(x_BTE: jax.Array, heads: int) -> jax.Array:
  """Cuts what a token holds in as many parts: [B, T, heads, H]."""
  B, T = x_BTE.shape[:2]
  size = math.prod(x_BTE.shape[2:])
  if size % heads:
    raise ValueError(
      f"{size} numbers a token cannot be cut into {heads} relation heads"
    )
  wide = jnp.promote_types(jnp.float32, x_BTE.dtype)
  return x_BTE.reshape(B, T, heads, size // heads).astype(wide)


def _log_relations(x_BTKH: jax.Array, y_BQKH: jax.Array, sees_BQT) -> jax.Array:
  """Returns log softmax over t of y x_t / sqrt(H): [B, heads, Q, T]."""
  scale = x_BTKH.shape[-1] ** -0.5
  logits_BKQT = jnp.einsum("BQKH,BTKH->BKQT", y_BQKH * scale, x_BTKH)
  logits_BKQT = jnp.where(sees_BQT[:, None], logits_BKQT, -jnp.inf)
  return jax.nn.log_softmax(logits_BKQT)


def divergence_between(
  student_BTD: jax.Array,
  teacher_BTE: jax.Array,
  segments_BT: jax.Array,
  *,
  heads: int,
  block: int = 128,
) -> jax.Array:
  """Returns KL(teacher || student) of each token's relations: gap_BT, nats.

  A token's relation is the softmax of its scaled products with itself and all
  before it in its segment; several numbers a token [B, T, ...] are cut into
  `heads` parts, whose divergences are averaged, so the widths may differ
  (MiniLMv2, 2012.15828, section 3). `block` tokens at a time: never [T, T].

  Raises:
    ValueError: the numbers of a token cannot be cut so.
  """
  student_BTKH, teacher_BTKH = (
    _split(x_BTE, heads) for x_BTE in (student_BTD, teacher_BTE)
  )
  B, T = segments_BT.shape
  block = min(block, T)
  spare = -T % block
  at_S = jnp.arange(T + spare).reshape(-1, block)

  @jax.checkpoint
  def one(at_Q):
    at_Q = jnp.minimum(at_Q, T - 1)  # beyond the end: dropped below
    same_BQT = segments_BT[:, at_Q, None] == segments_BT[:, None, :]
    sees_BQT = same_BQT & (jnp.arange(T)[None, None] <= at_Q[None, :, None])
    p_BKQT, q_BKQT = (
      _log_relations(x, x[:, at_Q], sees_BQT)
      for x in (teacher_BTKH, student_BTKH)
    )
    return divergence.kl(p_BKQT, q_BKQT).mean(1)

  gap_SBQ = jax.lax.map(one, at_S)
  return gap_SBQ.transpose(1, 0, 2).reshape(B, T + spare)[:, :T]


def blended(
  student: Dense,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  gap_BT: jax.Array,
  *,
  share: float,
  block: int,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics) of (1 - share) CE + share gap.

  The cross-entropy is what teaches all that lies above the compared layer.
  """
  logprobs_BT, _ = divergence.of_tokens(student, targets_BT, block=block)
  each_BT = -(1 - share) * logprobs_BT + share * gap_BT
  metrics = divergence.means(weights_BT, relations=gap_BT)
  return (weights_BT * each_BT).sum(), weights_BT.sum(), metrics
