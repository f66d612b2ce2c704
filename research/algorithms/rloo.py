"""REINFORCE leave-one-out (RLOO, 2402.14740).

A_i = R_i - (1 / (G - 1)) sum_{j != i} R_j over the G samples of one prompt, and
the gradient of J is (1 / G) sum_i A_i grad log pi(y_i): no ratio, no clip. The
paper's R_i is less beta log pi(y_i) / ref(y_i): `beta` of the advantage.
"""

from typing import Unpack

import jax

from research import groups, reference_kl, surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, beta: float = 0.0) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment."""
  scores_BT = reference_kl.penalised(trajectory, beta)
  return groups.left_out(trajectory, scores_BT)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics): -A log pi over sequences."""
  gain_BT = advantage_BT * policy.logprobs_BT
  return surrogate.total(policy, trajectory, gain_BT, "sum", **terms)
