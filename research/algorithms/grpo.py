"""Group-relative policy optimisation (GRPO, 2402.03300).

A_i = (R_i - mean R) / (std R + delta) over the samples of one prompt, and
L = -min(r A, clip(r, 1 - low, 1 + high) A) a token, r the ratio of the current
policy to the one that sampled. `clip_high` above `clip_low` is DAPO's
clip-higher (2503.14476); `normalize=False` is Dr.GRPO's advantage
(2503.20783). There is no KL term. With one update a rollout the ratio is 1 and
the clip rests.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from research import segments
from research.types import Policy, Trajectory

FARTHEST = 20.0  # nats of log-ratio that are told apart


def advantage(
  trajectory: Trajectory, *, normalize: bool = True, delta: float = 1e-4
) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment.

  A group whose rewards are all equal (max = min, no rounding involved) gets
  exactly 0. A segment of group -1 belongs to none, moves no mean and gets 0.
  """
  group_BT, reward_BT = trajectory.group_BT, trajectory.rewards_BT
  first_BT = segments.starts(trajectory.positions_BT, trajectory.segments_BT)
  ids = jnp.where(first_BT, group_BT, -1).reshape(-1)
  rewards = reward_BT.reshape(-1)
  groups = ids.size  # an upper bound, so that the shape is static
  total = lambda x: jax.ops.segment_sum(x, ids, num_segments=groups)
  count = jnp.maximum(total(jnp.ones_like(rewards)), 1)
  mean = total(rewards) / count
  centred_BT = reward_BT - mean[group_BT]
  spread = jax.ops.segment_max(rewards, ids, num_segments=groups)
  spread -= jax.ops.segment_min(rewards, ids, num_segments=groups)
  if normalize:
    square = total(jnp.square(centred_BT.reshape(-1)))
    centred_BT /= jnp.sqrt(square / count)[group_BT] + delta
  live_BT = (group_BT >= 0) & (trajectory.segments_BT > 0)
  return jnp.where(live_BT & (spread[group_BT] > 0), centred_BT, 0)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  aggregate: Literal["token", "sequence"] = "token",
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics).

  "token" averages over all sampled tokens (DAPO), "sequence" over each
  sequence's tokens and then over sequences (GRPO as published). Samples of
  groups without spread count in the denominator.
  """
  mask_BT = trajectory.mask_BT
  log_BT = jnp.where(
    mask_BT > 0, policy.logprobs_BT - trajectory.logprobs_BT, 0
  )
  # e^20 is far outside of any clip, and finite under every sum.
  log_BT = jnp.clip(log_BT, -FARTHEST, FARTHEST)
  ratio_BT = jnp.exp(log_BT)
  clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
  surrogate_BT = jnp.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)
  weight_BT, denominator = _weigh(trajectory, aggregate)
  cut_BT = clipped_BT * advantage_BT < ratio_BT * advantage_BT
  tokens = mask_BT.sum()
  metrics = {
    "clip_fraction": ((mask_BT * cut_BT).sum(), tokens),
    "entropy": ((mask_BT * policy.entropy_BT).sum(), tokens),
    **_mismatch(log_BT, mask_BT),
  }
  return -(weight_BT * surrogate_BT).sum(), denominator, metrics


def _weigh(
  trajectory: Trajectory, aggregate: str
) -> tuple[jax.Array, jax.Array]:
  mask_BT = trajectory.mask_BT
  if aggregate == "token":
    return mask_BT, mask_BT.sum()
  if aggregate != "sequence":
    raise ValueError(
      f'grpo.loss: aggregate is "token" or "sequence", not {aggregate!r}'
    )
  length_BT = segments.total(mask_BT, trajectory.segments_BT)
  weight_BT = mask_BT / jnp.maximum(length_BT, 1)
  first_BT = segments.starts(trajectory.positions_BT, trajectory.segments_BT)
  return weight_BT, (first_BT & (length_BT > 0)).sum().astype(weight_BT.dtype)


def _mismatch(log_BT: jax.Array, mask_BT: jax.Array) -> dict:
  """How far the trainer stands from the sampler: k3 and the share outside."""
  tokens = mask_BT.sum()
  ratio_BT = jnp.exp(log_BT)
  k3_BT = jnp.expm1(log_BT) - log_BT
  outside_BT = jnp.abs(ratio_BT - 1) > 0.1
  return {
    "mismatch_kl": ((mask_BT * k3_BT).sum(), tokens),
    "ratio_outside": ((mask_BT * outside_BT).sum(), tokens),
  }
