"""Proximal policy optimisation (PPO, 1707.06347) with GAE (1506.02438).

Rewards are a token's: R at the last sampled token, `process_BT` at any, less
beta k1 (research.reference_kl). With V_t the critic's value before token t+1,
over the sampled tokens of a segment, of which the last has V = 0 behind it:

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1}
    L  = -min(r A, clip(r, 1 - low, 1 + high) A)
    L_V = max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2) / 2,
          G = A + V_old

`loss` is the policy's, `value_loss` the critic's: a model of its own.

Tokens that the policy did not sample pass rewards on, undiscounted. Advantages
are not whitened.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import reference_kl, segments, surrogate
from research.types import Policy, Trajectory

PROCESS = "welcome"


def advantage(
  trajectory: Trajectory,
  *,
  gamma: float = 1.0,
  lam: float = 0.95,
  beta: float = 0.0,
) -> jax.Array:
  """Returns advantage_BT by GAE, one a token; 0 where none was sampled.

  Raises:
    ValueError: the trajectory has no values.
  """
  values_BT, mask_BT = _values(trajectory), trajectory.mask_BT
  ids_BT = trajectory.segments_BT
  now_BT = segments.recur(1 - mask_BT, mask_BT * values_BT, ids_BT)
  ahead_BT = jnp.where(segments.ends(ids_BT), 0, jnp.roll(now_BT, -1, axis=1))
  delta_BT = rewards(trajectory, beta) + gamma * ahead_BT - values_BT
  decay_BT = jnp.where(mask_BT > 0, gamma * lam, 1)
  live_BT = mask_BT * (trajectory.group_BT >= 0)
  return live_BT * segments.recur(decay_BT, mask_BT * delta_BT, ids_BT)


def rewards(trajectory: Trajectory, beta: float) -> jax.Array:
  """Returns what each sampled token earns; the answer's reward at its last."""
  mask_BT = trajectory.mask_BT
  last_BT = mask_BT * (segments.later(mask_BT, trajectory.segments_BT) == 0)
  earned_BT = last_BT * trajectory.rewards_BT
  if trajectory.process_BT is not None:
    earned_BT += jnp.where(mask_BT > 0, trajectory.process_BT, 0)
  if beta:
    earned_BT -= beta * reference_kl.penalty(trajectory)
  return earned_BT


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics) of L, a mean over sampled tokens."""
  return surrogate.clipped_total(
    policy, trajectory, advantage_BT, (clip_low, clip_high), "token", **terms
  )


def value_loss(
  values_BT: jax.Array,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  value_clip: float = 0.2,
) -> surrogate.Result:
  """Returns (sum, denominator, metrics) of L_V, a mean over sampled tokens.

  `values_BT` are the critic's now, the trajectory's those that made the
  advantage.

  Raises:
    ValueError: the trajectory has no values.
  """
  mask_BT = trajectory.mask_BT
  gap_BT = values_BT - _values(trajectory)
  near_BT = jnp.clip(gap_BT, -value_clip, value_clip)
  # V - G = (V - V_old) - A
  error_BT = jnp.maximum(
    jnp.square(gap_BT - advantage_BT), jnp.square(near_BT - advantage_BT)
  )
  cut_BT = gap_BT != near_BT
  told = surrogate.share(trajectory, clip_fraction=cut_BT)
  return (mask_BT * error_BT).sum() / 2, mask_BT.sum(), told


def _values(trajectory: Trajectory) -> jax.Array:
  if trajectory.values_BT is None:
    raise ValueError(
      "ppo needs trajectory.values_BT: a critic beside the policy, see "
      "objectives.critic"
    )
  return trajectory.values_BT
