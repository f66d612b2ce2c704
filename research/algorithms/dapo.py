"""Decoupled clip and dynamic sampling (DAPO, 2503.14476).

GRPO's advantage and clipped ratio with a wider upper bound, averaged over all
tokens of the batch, without KL; answers that near the limit are punished by
their length in tokens. Dynamic sampling, keeping groups with mixed results and
sampling anew for the others, is `research.groups.varied` and a loop around it.
The paper: clip 0.2 and 0.28, limit 20480, buffer 4096, penalty 1.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import groups, segments, surrogate
from research.types import Policy, Trajectory


def overlong(
  lengths: jax.Array, *, limit: int, buffer: int, penalty: float = 1.0
) -> jax.Array:
  """Returns the soft overlong punishment of answers of `lengths` tokens.

  0 up to limit - buffer, down to -penalty at `limit` and beyond (equation 13).
  """
  over = (lengths - (limit - buffer)) / buffer
  return -penalty * jnp.clip(over, 0, 1)


def advantage(
  trajectory: Trajectory,
  *,
  delta: float = 1e-4,
  limit: int | None = None,
  buffer: int = 4096,
  penalty: float = 1.0,
) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment.

  A `limit` on new tokens makes long answers earn less, see `overlong`.
  """
  scores_BT = trajectory.rewards_BT
  if limit is not None:
    lengths_BT = segments.total(trajectory.mask_BT, trajectory.segments_BT)
    scores_BT = scores_BT + overlong(
      lengths_BT, limit=limit, buffer=buffer, penalty=penalty
    )
  return groups.standard(trajectory, scores_BT, delta)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics), a mean over all sampled tokens."""
  return surrogate.clipped_total(
    policy, trajectory, advantage_BT, (clip_low, clip_high), "token", **terms
  )
