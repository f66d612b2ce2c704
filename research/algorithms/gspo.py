"""Group sequence policy optimisation (GSPO, 2507.18071).

GRPO's advantage; the ratio is one a sequence, s = exp(mean_t log r_t) over its
sampled tokens, and so is the clip. A row may hold several sequences: each has
its own. Terms of `surrogate.Terms` stay a token's own. The paper clips at 3e-4
and 4e-4.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import groups, segments, surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, delta: float = 1e-4) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment."""
  return groups.standard(trajectory, trajectory.rewards_BT, delta)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 3e-4,
  clip_high: float = 4e-4,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics), a mean over sequences."""
  total = lambda x_BT: segments.total(x_BT, trajectory.segments_BT)
  length_BT = jnp.maximum(total(trajectory.mask_BT), 1)
  log_BT = total(surrogate.log_ratio(policy, trajectory)) / length_BT
  return surrogate.clipped_total(
    policy,
    trajectory,
    advantage_BT,
    (clip_low, clip_high),
    "sequence",
    log_BT,
    **terms,
  )
