"""Group-relative policy optimisation (GRPO, 2402.03300).

A_i = (R_i - mean R) / (std R + delta) over the samples of one prompt, and
L = -min(r A, clip(r, 1 - low, 1 + high) A) a token, r the ratio of the current
policy to the one before its first update. With one update a rollout the ratio
is 1 and the clip rests.

The paper averages within each sequence and then over sequences ("sequence"),
clips at 0.2 and adds k3 to the loss with beta 0.04, which samples feel whose
advantage is 0 as well. `beta` of the advantage is k1 in the reward instead.
`normalize=False` divides by no std.
"""

from typing import Literal, Unpack

import jax

from research import groups, reference_kl, surrogate
from research.types import Policy, Trajectory


def advantage(
  trajectory: Trajectory,
  *,
  normalize: bool = True,
  delta: float = 1e-4,
  beta: float = 0.0,
) -> jax.Array:
  """Returns advantage_BT, the same on all tokens of a segment.

  A group whose rewards are all equal (max = min, no rounding involved) gets
  exactly 0. A segment of group -1 belongs to none, moves no mean and gets 0.

  Raises:
    ValueError: k1 would be divided by the std too, and have no weight beta.
  """
  if normalize and beta:
    raise ValueError(
      "grpo: a beta in the advantage wants normalize=False: a std would take "
      "its weight, and in groups of equal rewards make a reward of it"
    )
  scores_BT = reference_kl.penalised(trajectory, beta)
  if normalize:
    return groups.standard(trajectory, scores_BT, delta)
  return groups.centred(trajectory, scores_BT)


def loss(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  aggregate: Literal["token", "sequence"] = "token",
  **terms: Unpack[surrogate.Terms],
) -> surrogate.Result:
  """Returns (sum, denominator, metrics).

  "token" averages over all sampled tokens, "sequence" over each sequence's
  tokens and then over sequences. Samples of groups without spread count in the
  denominator.
  """
  return surrogate.clipped_total(
    policy,
    trajectory,
    advantage_BT,
    (clip_low, clip_high),
    aggregate,
    **terms,
  )
