"""Functions of next-token logits, a block of tokens at a time.

Where there is more than one block no [B, T, V] array is made: each block's
logits are computed, used and recomputed in the backward pass. One block that
holds all tokens keeps its logits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def map_tokens(
  f: Callable[..., Any],
  hidden_BTD: jax.Array,
  unembed_VD: jax.Array,
  *per_token: Any,
  block: int = 512,
  softcap: float | None = None,
) -> Any:
  """Applies `f(logits_QV, *per_token)` to blocks of Q tokens.

  Leaves of `per_token` are [B, T, ...] and reach `f` as [Q, ...]; what `f`
  returns, [Q, ...], comes back as [B, T, ...]. A block takes the same span of
  T from every row, so rows may lie on different devices; `block` counts the
  tokens in flight on all of them together. Logits are fp32 (fp64 for fp64).
  """
  B, T = hidden_BTD.shape[:2]
  span = min(T, max(1, block // B))
  steps = -(-T // span)
  wide = jnp.promote_types(jnp.float32, hidden_BTD.dtype)

  def cut(x):  # [B, T, ...] -> [steps, B * span, ...]
    x = jnp.pad(x, [(0, 0), (0, steps * span - T)] + [(0, 0)] * (x.ndim - 2))
    x = x.reshape(B, steps, span, *x.shape[2:]).swapaxes(0, 1)
    return x.reshape(steps, B * span, *x.shape[3:])

  def join(x):  # [steps, B * span, ...] -> [B, T, ...]
    x = x.reshape(steps, B, span, *x.shape[2:]).swapaxes(0, 1)
    return x.reshape(B, steps * span, *x.shape[3:])[:, :T]

  def one(hidden_QD, *rest):
    logits_QV = jnp.einsum(
      "QD,VD->QV", hidden_QD, unembed_VD, preferred_element_type=wide
    )
    if softcap is not None:
      logits_QV = softcap * jnp.tanh(logits_QV / softcap)
    return f(logits_QV, *rest)

  blocks = jax.tree.map(cut, (hidden_BTD, *per_token))
  if steps == 1:
    out = jax.tree.map(lambda x: x[None], one(*(b[0] for b in blocks)))
  else:
    again = jax.checkpoint(one)
    out = jax.lax.map(lambda xs: again(*xs), blocks)
  return jax.tree.map(join, out)


def token_logprobs(
  hidden_BTD: jax.Array,
  unembed_VD: jax.Array,
  targets_BT: jax.Array,
  *,
  temperature: float = 1.0,
  softcap: float | None = None,
  block: int = 512,
) -> tuple[jax.Array, jax.Array]:
  """Returns (logprobs_BT, entropy_BT), in nats, at the given temperature."""

  def f(logits_QV, targets_Q):
    logp_QV = jax.nn.log_softmax(logits_QV / temperature)
    p_QV = jnp.exp(logp_QV)
    # p log p is 0 where p is 0, also when the logit is -inf.
    plogp_QV = p_QV * jnp.where(p_QV > 0, logp_QV, 0)
    picked_Q = jnp.take_along_axis(logp_QV, targets_Q[:, None], 1)[:, 0]
    return picked_Q, -plogp_QV.sum(-1)

  return map_tokens(
    f, hidden_BTD, unembed_VD, targets_BT, block=block, softcap=softcap
  )
