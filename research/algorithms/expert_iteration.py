"""Expert iteration, or rejection sampling (1705.08439; ReST-EM, 2312.06585).

The advantage is 1 for samples whose reward is at least `least`, else 0, and the
loss is their cross-entropy: supervised learning on one's own best answers. The
gradient of its sum is that of E[1(R >= least)] on-policy; the mean is over what
was kept.
"""

import jax

from research import surrogate
from research.types import Policy, Trajectory


def advantage(trajectory: Trajectory, *, least: float = 1.0) -> jax.Array:
  """Returns advantage_BT, 1 on the tokens of kept segments and 0 on others."""
  graded_BT = (trajectory.group_BT >= 0) & (trajectory.segments_BT > 0)
  kept_BT = graded_BT & (trajectory.rewards_BT >= least)
  return kept_BT.astype(trajectory.mask_BT.dtype)


def loss(
  policy: Policy, trajectory: Trajectory, advantage_BT: jax.Array
) -> surrogate.Result:
  """Returns (sum, denominator, metrics), a mean over the kept tokens."""
  gain_BT = advantage_BT * policy.logprobs_BT
  total, _, metrics = surrogate.total(policy, trajectory, gain_BT, "token")
  kept = (trajectory.mask_BT * advantage_BT).sum()
  return total, kept, metrics | surrogate.share(trajectory, kept=advantage_BT)
