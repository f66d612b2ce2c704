"""Rewards alone teach a planted task, and neither noise nor nothing does.

The reward is the share of one token among sixteen. The policy is a table: a law
over 64 tokens for each of four prompts, eight answers each. PPO and PRIME want
models beside it, and expert iteration answers that are right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.algorithms import (
  cispo,
  dapo,
  dr_grpo,
  grpo,
  gspo,
  reinforce,
  rloo,
)
from research.types import Policy, Trajectory

V, N, STEPS, PLANTED = 64, 16, 60, 7
GROUP = jnp.arange(32) // 8
ADAM = optax.adam(0.1)  # of a table, whose logits move by as much a step


def trajectory(drawn_BN, logprobs_BN, rewards_B):
  """One answer a row, behind a prompt of one token."""
  B = len(drawn_BN)
  behind = lambda x, pad: jnp.pad(x, ((0, 0), pad))
  whole = lambda x: jnp.broadcast_to(x[:, None], (B, N + 1))
  zeros = jnp.zeros((B, N + 1))
  logprobs_BT = behind(logprobs_BN, (0, 1))
  return Trajectory(
    tokens_BT=behind(drawn_BN, (1, 0)),
    positions_BT=jnp.broadcast_to(jnp.arange(N + 1), (B, N + 1)),
    segments_BT=jnp.ones((B, N + 1), jnp.int32),
    group_BT=whole(GROUP),
    mask_BT=behind(jnp.ones((B, N)), (0, 1)),
    rewards_BT=whole(rewards_B),
    logprobs_BT=logprobs_BT,
    old_logprobs_BT=logprobs_BT,
    ref_logprobs_BT=logprobs_BT,
    values_BT=zeros,
    process_BT=zeros,
    truncated_BT=zeros,
    version_BT=zeros.astype(jnp.int32),
  )


def policy(logits_PV, drawn_BN):
  law_BV = jax.nn.log_softmax(logits_PV)[GROUP]
  now_BN = jnp.take_along_axis(law_BV, drawn_BN, 1)
  entropy_B = -(jnp.exp(law_BV) * law_BV).sum(1)
  wide = lambda x: jnp.pad(x, ((0, 0), (0, 1)))
  spread_BN = jnp.broadcast_to(entropy_B[:, None], now_BN.shape)
  return Policy(wide(now_BN), wide(spread_BN), jnp.zeros_like(wide(now_BN)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def learned(module, earned, seed):
  """The planted token's share in each of the steps."""

  def step(carry, key):
    logits_PV, state = carry
    draw, chance = jax.random.split(key)
    drawn_BN = jax.random.categorical(
      draw, logits_PV[GROUP][:, None], shape=(len(GROUP), N)
    )
    share_B = jnp.mean(drawn_BN == PLANTED, 1)
    said = policy(logits_PV, drawn_BN).logprobs_BT[:, :N]
    told = trajectory(drawn_BN, said, earned(share_B, chance))
    advantage_BT = module.advantage(told)

    def loss(logits_PV):
      value, count, _ = module.loss(
        policy(logits_PV, drawn_BN), told, advantage_BT
      )
      return value / jnp.maximum(count, 1)

    updates, state = ADAM.update(jax.grad(loss)(logits_PV), state)
    return (optax.apply_updates(logits_PV, updates), state), share_B.mean()

  begin, rest = jax.random.split(jax.random.key(seed))
  logits_PV = 0.1 * jax.random.normal(begin, (4, V))
  start = logits_PV, ADAM.init(logits_PV)
  return jax.lax.scan(step, start, jax.random.split(rest, STEPS))[1]


def told(share_B, key):
  del key
  return share_B


def shuffled(share_B, key):
  return jax.random.permutation(key, share_B)


def nothing(share_B, key):
  del key
  return jnp.zeros_like(share_B)


ALGORITHMS = {
  m.__name__.rpartition(".")[2]: m
  for m in (cispo, dapo, dr_grpo, grpo, gspo, reinforce, rloo)
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_rewards_teach_and_noise_does_not(name):
  module = ALGORITHMS[name]
  for seed in range(3):
    shares = np.asarray(learned(module, told, seed))
    assert shares[0] < 0.1 and shares[-5:].mean() >= 0.5, shares
    assert learned(module, shuffled, seed)[-5:].mean() < 0.1


def test_no_reward_teaches_nothing():
  for seed in range(3):
    assert learned(grpo, nothing, seed)[-5:].mean() < 0.1
