"""An implicit process reward model (2412.01981), trained as PRIME does.

A language model phi beside a frozen ref is itself a reward model. Its
r(y) = beta log phi(y) / ref(y) is fitted to outcomes by cross-entropy; then
beta log phi(y_t) / ref(y_t) is what token t is worth. PRIME (2502.01456) has a
beta of 0.05 and goes on training phi beside the policy.
"""

import jax
import jax.numpy as jnp

from research import reference_kl, segments
from research.reward_models import _judged
from research.types import Policy, Trajectory


def reward(
  logprobs_BT: jax.Array, ref_logprobs_BT: jax.Array, *, beta: float = 0.05
) -> jax.Array:
  """Returns process_BT from phi's and ref's log-probabilities."""
  return beta * (logprobs_BT - ref_logprobs_BT)


def loss(
  phi: Policy, trajectory: Trajectory, *, beta: float = 0.05
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over graded answers.

  `trajectory.ref_logprobs_BT` is phi's reference, `rewards_BT` in [0, 1].

  Raises:
    ValueError: the trajectory has no reference log-probabilities.
  """
  mask_BT, ids_BT = trajectory.mask_BT, trajectory.segments_BT
  ref_BT = reference_kl.needed(trajectory)
  gap_BT = jnp.where(mask_BT > 0, phi.logprobs_BT - ref_BT, 0)
  scores_BT = beta * segments.total(gap_BT, ids_BT)
  graded_BT = segments.total(mask_BT, ids_BT) > 0
  first_BT = segments.starts(trajectory.positions_BT, ids_BT) & graded_BT
  weights_BT = first_BT.astype(mask_BT.dtype)
  return _judged.cross_entropy(scores_BT, trajectory.rewards_BT, weights_BT)
