"""REINFORCE with a baseline (Williams 1992).

The gradient of E[R] is E[sum_t (R - b) grad log pi(y_t)] for any b that does
not know of the sample. Here b is the mean reward of the batch's other samples,
whatever their prompts, and so another where groups are filtered;
`research.algorithms.rloo` has a baseline a prompt, which is not. With
`beta` R is less beta k1 of the whole answer, see research.reference_kl.
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from research import groups, reference_kl, surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, beta: float = 0.0) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment."""
  scores_BT = reference_kl.penalised(trajectory, beta)
  all_BT = jnp.minimum(trajectory.group_BT, 0)
  return groups.left_out(trajectory, scores_BT, all_BT)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics): -A log pi over sequences."""
  gain_BT = advantage_BT * policy.logprobs_BT
  return surrogate.total(policy, trajectory, gain_BT, "sum", **terms)
