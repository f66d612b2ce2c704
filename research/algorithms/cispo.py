"""Clipped importance-sampling weights (CISPO, MiniMax-M1, 2506.13585).

L = -sg(clip(r, 1 - low, 1 + high)) A log pi a token: the clip bounds a weight
that no gradient flows through, so every token keeps one. GRPO's advantage, a
mean over all tokens, no KL. The paper bounds the ratio above alone (low = 1)
and tunes `high`.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import groups, surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, delta: float = 1e-4) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment."""
  return groups.standard(trajectory, trajectory.rewards_BT, delta)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 1.0,
  clip_high: float = 0.28,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics), a mean over all sampled tokens."""
  ratio_BT = jnp.exp(surrogate.log_ratio(policy, trajectory))
  weight_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
  gain_BT = jax.lax.stop_gradient(weight_BT) * advantage_BT * policy.logprobs_BT
  total, denominator, metrics = surrogate.total(
    policy, trajectory, gain_BT, "token", **terms
  )
  cut_BT = weight_BT != ratio_BT
  return (
    total,
    denominator,
    metrics | surrogate.share(trajectory, clip_fraction=cut_BT),
  )
