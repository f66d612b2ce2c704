"""Implicit process rewards (PRIME, 2502.01456; implicit PRM, 2412.01981).

A model phi, trained on outcomes alone, says what each token is worth:
r(y_t) = beta log phi(y_t) / ref(y_t), the trajectory's `process_BT`, from
research.reward_models.implicit.
Of the G samples of one prompt, with T_j sampled tokens each:

    A_t = sum_{s >= t} gamma^{s-t} (r(y_s) - b_i) + R_i - mean_{j != i} R_j
    b_i = mean_{j != i} (1 / T_j) sum_s r(y^j_s)

b_i is a price on each token: where lengths differ, it shortens or lengthens
answers besides reducing variance. PPO's clip, a mean over all tokens; gamma 1.
Where nearly all answers are wrong, phi learns to unlearn whatever is sampled,
and calls right ones worse: the source learns from prompts with an accuracy of
0.2 to 0.8 alone, which is a rollout's `between`.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import groups, segments, surrogate
from research.types import Policy, Trajectory

PROCESS = "wanted"


def advantage(trajectory: Trajectory, *, gamma: float = 1.0) -> jax.Array:
  """Returns advantage_BT, one a token.

  Raises:
    ValueError: the trajectory has no process rewards.
  """
  if trajectory.process_BT is None:
    raise ValueError(
      "prime needs trajectory.process_BT: score the rollout with the implicit "
      "reward model and its reference (reward_models.implicit.reward)"
    )
  mask_BT, ids_BT = trajectory.mask_BT, trajectory.segments_BT
  earned_BT = jnp.where(mask_BT > 0, trajectory.process_BT, 0)
  length_BT = jnp.maximum(segments.total(mask_BT, ids_BT), 1)
  mean_BT = segments.total(earned_BT, ids_BT) / length_BT
  group = groups.of(trajectory, mean_BT)
  others = jnp.maximum(group.count_BT - 1, 1)
  base_BT = (group.count_BT * group.mean_BT - mean_BT) / others
  decay_BT = jnp.where(mask_BT > 0, gamma, 1)
  graded_BT = mask_BT * (trajectory.group_BT >= 0)
  ahead_BT = segments.recur(decay_BT, graded_BT * (earned_BT - base_BT), ids_BT)
  outcome_BT = groups.left_out(trajectory, trajectory.rewards_BT)
  return graded_BT * (ahead_BT + outcome_BT)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics), a mean over all sampled tokens."""
  return surrogate.clipped_total(
    policy, trajectory, advantage_BT, (clip_low, clip_high), "token", **terms
  )
