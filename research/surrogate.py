"""What policy-gradient losses share: ratios, the clip, terms, denominators."""

from typing import Literal, NotRequired, TypedDict, Unpack

import jax
import jax.numpy as jnp

from research import divergence, reference_kl, segments
from research.types import Policy, Trajectory

Aggregate = Literal["token", "sequence", "sum"]
Result = tuple[jax.Array, jax.Array, dict]


class Terms(TypedDict):
  """What any of these losses may have besides, by default nothing.

  `beta` times the divergence `kl` ("k3") from the reference, see
  research.reference_kl; less `entropy` times the policy's entropy; `cap` bounds
  the weights that make good for another sampler, see `correction`.
  """

  kl: NotRequired[reference_kl.Kl]
  beta: NotRequired[float]
  entropy: NotRequired[float]
  cap: NotRequired[float | None]


def log_ratio(policy: Policy, trajectory: Trajectory) -> jax.Array:
  """Returns log pi / pi_old, pi_old the policy before its first update."""
  old_BT = reference_kl.old_logprobs(trajectory)
  return reference_kl.log_ratio(policy.logprobs_BT, old_BT, trajectory.mask_BT)


def clipped(
  ratio_BT: jax.Array, advantage_BT: jax.Array, low: float, high: float
) -> tuple[jax.Array, jax.Array]:
  """Returns min(r A, clip(r, 1 - low, 1 + high) A), and where the clip bites.

  The minimum is taken for both signs of A (PPO, 1707.06347, equation 7).
  """
  plain_BT = ratio_BT * advantage_BT
  cut_BT = jnp.clip(ratio_BT, 1 - low, 1 + high) * advantage_BT
  return jnp.minimum(plain_BT, cut_BT), cut_BT < plain_BT


def correction(trajectory: Trajectory, cap: float) -> jax.Array:
  """Returns min(pi_old / sampler, cap), a constant: truncated importance.

  The sampler's law differs from the trainer's where their arithmetic or their
  versions do (Yao et al. 2025, "Your efficient RL framework secretly brings
  you off-policy RL training"). Where the cap does not bite it has no bias.
  """
  if trajectory.old_logprobs_BT is None:
    raise ValueError(
      "cap needs the trainer's own log-probabilities beside the sampler's: "
      "score the rollout before its first update and set old_logprobs_BT"
    )
  log_BT = reference_kl.log_ratio(
    trajectory.old_logprobs_BT, trajectory.logprobs_BT, trajectory.mask_BT
  )
  return jnp.minimum(jnp.exp(log_BT), cap)


def weigh(
  trajectory: Trajectory, aggregate: Aggregate
) -> tuple[jax.Array, jax.Array]:
  """Returns (weight_BT, denominator).

  "token" averages over all sampled tokens, "sequence" over each sequence's
  tokens and then over sequences, "sum" over sequences of their tokens' sums.
  Samples without advantage count in the denominator, those without mask do not.
  """
  mask_BT = trajectory.mask_BT
  if aggregate == "token":
    return mask_BT, mask_BT.sum()
  if aggregate not in ("sequence", "sum"):
    raise ValueError(
      f'aggregate is "token", "sequence" or "sum", not {aggregate!r}'
    )
  length_BT = segments.total(mask_BT, trajectory.segments_BT)
  first_BT = segments.starts(trajectory.positions_BT, trajectory.segments_BT)
  sequences = (first_BT & (length_BT > 0)).sum().astype(mask_BT.dtype)
  if aggregate == "sum":
    return mask_BT, sequences
  return mask_BT / jnp.maximum(length_BT, 1), sequences


def total(
  policy: Policy,
  trajectory: Trajectory,
  gain_BT: jax.Array,
  aggregate: Aggregate,
  *,
  kl: reference_kl.Kl = "k3",
  beta: float = 0.0,
  entropy: float = 0.0,
  cap: float | None = None,
) -> Result:
  """Returns (sum, denominator, metrics) of -gain_BT and of `Terms`."""
  loss_BT = -gain_BT
  if cap is not None:
    loss_BT *= correction(trajectory, cap)
  if beta:
    loss_BT += beta * reference_kl.divergence(kl, policy, trajectory)
  if entropy:
    loss_BT -= entropy * policy.entropy_BT
  weight_BT, denominator = weigh(trajectory, aggregate)
  loss_BT = jnp.where(weight_BT > 0, loss_BT, 0)
  return (weight_BT * loss_BT).sum(), denominator, watched(policy, trajectory)


def clipped_total(
  policy: Policy,
  trajectory: Trajectory,
  advantage_BT: jax.Array,
  clip: tuple[float, float],
  aggregate: Aggregate,
  log_BT: jax.Array | None = None,
  **terms: Unpack[Terms],
) -> Result:
  """Returns (sum, denominator, metrics) of PPO's clipped surrogate.

  `clip` is (low, high); the log-ratio is each token's own unless given.
  """
  if log_BT is None:
    log_BT = log_ratio(policy, trajectory)
  gain_BT, cut_BT = clipped(jnp.exp(log_BT), advantage_BT, *clip)
  value, denominator, metrics = total(
    policy, trajectory, gain_BT, aggregate, **terms
  )
  return value, denominator, metrics | share(trajectory, clip_fraction=cut_BT)


def share(trajectory: Trajectory, **told_BT: jax.Array) -> dict:
  """Returns metrics by name, means over the sampled tokens."""
  return divergence.means(trajectory.mask_BT, **told_BT)


def watched(policy: Policy, trajectory: Trajectory) -> dict:
  """Returns metrics of the raw ratios to the *sampler*, and of the policy.

  `ratio_outside` is the share of tokens outside [0.9, 1.1]. With the trainer's
  own scores before its first update, `mismatch_kl` is k3 of KL(sampler || that
  policy): arithmetic, or an older version; and `drift_kl` that of KL(that ||
  policy), what the updates moved. Without, `mismatch_kl` is both at once. `kl`
  is from the reference.
  """
  mask_BT = trajectory.mask_BT
  log_BT = reference_kl.log_ratio(
    policy.logprobs_BT, trajectory.logprobs_BT, mask_BT
  )
  ratio_BT = jnp.exp(log_BT)
  some = (mask_BT.sum() > 0).astype(mask_BT.dtype)
  told_BT = {
    "entropy": policy.entropy_BT,
    "ratio_mean": ratio_BT,
    "ratio_outside": jnp.abs(ratio_BT - 1) > 0.1,
  }
  told_BT |= _apart(policy, trajectory, log_BT)
  if policy.divergence_BT is not None:
    told_BT["kl"] = policy.divergence_BT
  elif trajectory.ref_logprobs_BT is not None:
    told_BT["kl"] = reference_kl.divergence("k3", policy, trajectory)
  extremes = {
    "ratio_min": (jnp.where(mask_BT > 0, ratio_BT, jnp.inf).min(), some),
    "ratio_max": (jnp.where(mask_BT > 0, ratio_BT, -jnp.inf).max(), some),
  }
  return share(trajectory, **told_BT) | extremes


def _apart(
  policy: Policy, trajectory: Trajectory, log_BT: jax.Array
) -> dict[str, jax.Array]:
  """Returns how far the sampler and the updates took the policy, a token."""
  if trajectory.old_logprobs_BT is None:
    return {"mismatch_kl": reference_kl.k3(-log_BT)}
  moved_BT = log_ratio(policy, trajectory)
  older_BT = reference_kl.log_ratio(
    trajectory.old_logprobs_BT, trajectory.logprobs_BT, trajectory.mask_BT
  )
  return {
    "mismatch_kl": reference_kl.k3(-older_BT),
    "drift_kl": reference_kl.k3(-moved_BT),
  }
