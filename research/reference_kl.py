"""KL between the policy and its reference, by what gradient each form has.

With d = log pi(y) - log ref(y) of tokens y that pi sampled:

    k1 = d                      unbiased; as a loss its expected gradient is
                                0, so it is offered in the reward alone
    k2 = d^2 / 2                as a loss: the gradient of KL(pi || ref)
    k3 = exp(-d) - 1 + d        unbiased, >= 0; as a loss: the gradient of the
                                *forward* KL(ref || pi)
    k3_weighted = r k3          r = pi / old policy: the gradient of
                                KL(pi || ref), also for y that old sampled
    full = sum_y pi(y) d(y)     the gradient of KL(pi || ref), without noise

(Schulman, "Approximating KL divergence", 2020.) As a loss each holds the
prefixes fixed: a token does not answer for the divergence of those behind it.
In the reward it does: that is the gradient of the KL between whole answers.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from research import segments
from research.types import Policy, Trajectory

Kl = Literal["k2", "k3", "k3_weighted", "full"]

FARTHEST = 20.0  # nats of log-ratio that are told apart; e^20 is finite in fp32


def log_ratio(
  one_BT: jax.Array, other_BT: jax.Array, mask_BT: jax.Array
) -> jax.Array:
  """Returns one - other, 0 where nothing was sampled, within FARTHEST."""
  log_BT = jnp.where(mask_BT > 0, one_BT - other_BT, 0)
  return jnp.clip(log_BT, -FARTHEST, FARTHEST)


def old_logprobs(trajectory: Trajectory) -> jax.Array:
  """Returns the log-probabilities of the policy before its first update."""
  if trajectory.old_logprobs_BT is None:
    return trajectory.logprobs_BT
  return trajectory.old_logprobs_BT


def k3(log_BT: jax.Array) -> jax.Array:
  """Returns exp(-d) - 1 + d, without cancellation near 0."""
  return jnp.expm1(-log_BT) + log_BT


def divergence(kl: Kl, policy: Policy, trajectory: Trajectory) -> jax.Array:
  """Returns kl_BT, a loss in nats a token; see the module for its gradient.

  Raises:
    ValueError: there is no such form, or no reference to compare with.
  """
  if kl == "full":
    if policy.divergence_BT is None:
      raise ValueError(
        'kl="full" needs the reference model beside the policy: give '
        "objectives.policy_gradient its `reference`"
      )
    return policy.divergence_BT
  mask_BT = trajectory.mask_BT
  d_BT = log_ratio(policy.logprobs_BT, needed(trajectory), mask_BT)
  if kl == "k2":
    return jnp.square(d_BT) / 2
  if kl == "k3":
    return k3(d_BT)
  if kl == "k3_weighted":
    old_BT = old_logprobs(trajectory)
    ratio_BT = jnp.exp(log_ratio(policy.logprobs_BT, old_BT, mask_BT))
    return ratio_BT * k3(d_BT)
  raise ValueError(
    f'kl is "k2", "k3", "k3_weighted" or "full", not {kl!r}; k1 has no '
    "gradient as a loss and belongs in the advantage's beta"
  )


def penalty(trajectory: Trajectory) -> jax.Array:
  """Returns k1_BT of the policy that sampled, 0 on other tokens: a constant."""
  old_BT = old_logprobs(trajectory)
  return log_ratio(old_BT, needed(trajectory), trajectory.mask_BT)


def penalised(trajectory: Trajectory, beta: float) -> jax.Array:
  """Returns rewards_BT less beta times k1 of the whole answer."""
  if not beta:
    return trajectory.rewards_BT
  k1_BT = segments.total(penalty(trajectory), trajectory.segments_BT)
  return trajectory.rewards_BT - beta * k1_BT


def needed(trajectory: Trajectory) -> jax.Array:
  """Returns ref_logprobs_BT, or says how to come by them (ValueError)."""
  if trajectory.ref_logprobs_BT is None:
    raise ValueError(
      "the reference's log-probabilities of the rollout are needed: score it "
      "with the reference (objectives.score) and set ref_logprobs_BT"
    )
  return trajectory.ref_logprobs_BT
