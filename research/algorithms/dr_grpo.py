"""GRPO done right (Dr.GRPO, 2503.20783).

A_i = R_i - mean R, by no std, which would weigh prompts near accuracy 0 or 1
more; and the sum over tokens is divided by G times a constant `length`, not by
each sequence's own, which would spare long wrong answers. On-policy the
gradient is (G - 1) / (G length) that of E[R], exactly. beta is 0 in the paper.
"""

from typing import Unpack

import jax

from research import groups, reference_kl, surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, beta: float = 0.0) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment."""
  scores_BT = reference_kl.penalised(trajectory, beta)
  return groups.centred(trajectory, scores_BT)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  length: int = 3000,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics); `length` is the most new tokens."""
  total, sequences, metrics = surrogate.clipped_total(
    policy, trajectory, advantage_BT, (clip_low, clip_high), "sum", **terms
  )
  return total, sequences * length, metrics
