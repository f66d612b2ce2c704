"""Each algorithm's loss against its definition, written as loops over answers.

Off-policy, over packed rows with prompts, padding and a failed grading: values
and derivatives by each log-probability.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import surrogate
from research.algorithms import (
  cispo,
  dapo,
  dr_grpo,
  grpo,
  gspo,
  ppo,
  prime,
  rloo,
)
from research.types import Policy
from tests.research.algorithms.rollouts import answers, packed

CONSTANT = jax.lax.stop_gradient  # kept from those who plant mistakes


def scores(rollout):
  return [
    (int(rollout.group_BT[b, at[0]]), float(rollout.rewards_BT[b, at[0]]))
    for b, at in answers(rollout)
  ]


def clip(ratio, advantage, low, high):
  bounded = jnp.clip(ratio, 1 - low, 1 + high)
  return jnp.minimum(ratio * advantage, bounded * advantage)


def by_loops(of_answer, mean, rollout, now, advantages):
  """-mean(answers' lists of tokens' gains)."""
  gains = []
  for (b, at), A in zip(answers(rollout), advantages, strict=True):
    old = [rollout.old_logprobs_BT[b, t] for t in at]
    gains.append(of_answer([now[b, t] for t in at], old, A))
  return -mean(gains)


def of_tokens(now, old, A, low=0.2, high=0.2):
  ratios = [jnp.exp(a - b) for a, b in zip(now, old, strict=True)]
  return [clip(r, A, low, high) for r in ratios]


def of_sequence(now, old, A, low=3e-4, high=4e-4):
  gaps = [a - b for a, b in zip(now, old, strict=True)]
  s = jnp.exp(sum(gaps) / len(gaps))
  return [clip(s, A, low, high)] * len(gaps)


def of_weights(now, old, A, high=0.28):
  ratios = [jnp.exp(a - b) for a, b in zip(now, old, strict=True)]
  weights = [CONSTANT(jnp.minimum(r, 1 + high)) for r in ratios]
  return [w * A * a for w, a in zip(weights, now, strict=True)]


def plain(now, old, A):
  return [A * a for a in now]


token_mean = lambda gains: sum(map(sum, gains)) / sum(map(len, gains))
sequence_mean = lambda gains: sum(sum(g) / len(g) for g in gains) / len(gains)
constant = lambda gains: sum(map(sum, gains)) / (len(gains) * 16)
sums = lambda gains: sum(map(sum, gains)) / len(gains)


def standard(group, reward, others):
  others = np.asarray(others)
  if np.ptp(others) == 0:
    return 0.0
  return (reward - others.mean()) / (others.std() + 1e-4)


def centred(group, reward, others):
  return reward - np.mean(others)


def left_out(group, reward, others):
  return (reward - np.mean(others)) * len(others) / (len(others) - 1)


# name: (module, its arguments, advantage, an answer's gains, their mean)
DEFINED = {
  "grpo": (grpo, {}, standard, of_tokens, token_mean),
  "grpo_sequence": (
    grpo,
    {"aggregate": "sequence"},
    standard,
    of_tokens,
    sequence_mean,
  ),
  "dr_grpo": (dr_grpo, {"length": 16}, centred, of_tokens, constant),
  "dapo": (
    dapo,
    {},
    standard,
    functools.partial(of_tokens, high=0.28),
    token_mean,
  ),
  "gspo": (gspo, {}, standard, of_sequence, sequence_mean),
  "cispo": (cispo, {}, standard, of_weights, token_mean),
  "rloo": (rloo, {}, left_out, plain, sums),
}


def compare(name):
  module, args, advantage, of_answer, mean = DEFINED[name]
  rollout, said = packed()
  told = scores(rollout)
  advantages = [
    advantage(g, r, [other for h, other in told if h == g]) for g, r in told
  ]

  def ours(now):
    policy = Policy(now, said.entropy_BT)
    advantage_BT = module.advantage(rollout)
    total, count, _ = module.loss(policy, rollout, advantage_BT, **args)
    return total / count

  loops = lambda now: by_loops(of_answer, mean, rollout, now, advantages)
  found, slope = jax.jit(jax.value_and_grad(ours))(said.logprobs_BT)
  wanted, expected = jax.jit(jax.value_and_grad(loops))(said.logprobs_BT)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  np.testing.assert_allclose(slope, expected, atol=1e-13)
  assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", DEFINED)
def test_a_loss_is_what_its_paper_says(name):
  with jax.enable_x64(True):
    compare(name)


def gae(rewards, values, gamma, lam):
  """Backwards over one answer's sampled tokens."""
  found, carry, ahead = [], 0.0, 0.0
  for r, v in zip(reversed(rewards), reversed(values), strict=True):
    carry = r + gamma * ahead - v + gamma * lam * carry
    found.insert(0, carry)
    ahead = v
  return found


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.9, 0.7)])
def test_gae_by_a_loop(gamma, lam):
  with jax.enable_x64(True):
    rollout, _ = packed()
    found = ppo.advantage(rollout, gamma=gamma, lam=lam, beta=0.3)
    rest = np.asarray(found).copy()
    for b, at in answers(rollout):
      k1 = [rollout.old_logprobs_BT[b, t] - rollout.ref_logprobs_BT[b, t]
            for t in at]  # fmt: skip
      earned = [rollout.process_BT[b, t] - 0.3 * k
                for t, k in zip(at, k1, strict=True)]  # fmt: skip
      earned[-1] += rollout.rewards_BT[b, at[-1]]
      values = [rollout.values_BT[b, t] for t in at]
      wanted = gae(earned, values, gamma, lam)
      np.testing.assert_allclose(found[b, np.array(at)], wanted, rtol=1e-12)
      rest[b, at] = 0
    assert not rest.any()


def test_tokens_of_an_environment_pass_rewards_on():
  """Sampled, sampled, theirs, theirs, sampled: as if theirs were not there."""
  with jax.enable_x64(True):
    rollout, _ = packed([[(1, 7, 0, 1.0)]], T=8)
    holes = rollout.mask_BT.copy()
    holes[0, 2:4] = 0
    holed = rollout.replace(mask_BT=holes)
    found = ppo.advantage(holed, gamma=0.9, lam=0.7)
    at = [0, 1, 4, 5, 6]
    earned = [float(rollout.process_BT[0, t]) for t in at]
    earned[-1] += 1.0
    values = [float(rollout.values_BT[0, t]) for t in at]
    wanted = gae(earned, values, 0.9, 0.7)
    np.testing.assert_allclose(found[0, np.array(at)], wanted, rtol=1e-12)
    assert not np.any(found[0, 2:4])


def test_the_value_loss_by_a_loop():
  with jax.enable_x64(True):
    rollout, said = packed()
    advantage_BT = ppo.advantage(rollout)
    now_BT = rollout.values_BT + 0.2 * (said.logprobs_BT + 2.6)
    total, tokens, told = ppo.value_loss(
      now_BT, rollout, advantage_BT, value_clip=0.05
    )
    wanted, count, cut = 0.0, 0, 0
    advantage_BT = np.asarray(advantage_BT)
    for b, at in answers(rollout):
      for t in at:
        new, old = now_BT[b, t], rollout.values_BT[b, t]
        goal = advantage_BT[b, t] + old
        near = np.clip(new, old - 0.05, old + 0.05)
        wanted += max((new - goal) ** 2, (near - goal) ** 2) / 2
        count += 1
        cut += near != new
    assert tokens == count and 0 < cut < count
    np.testing.assert_allclose(total, wanted)
    assert told["clip_fraction"] == (cut, count)


def test_primes_advantage_by_a_loop():
  with jax.enable_x64(True):
    rollout, _ = packed()
    found = np.asarray(prime.advantage(rollout, gamma=0.9))
    told = scores(rollout)
    means = [
      np.mean([rollout.process_BT[b, t] for t in at])
      for b, at in answers(rollout)
    ]
    for i, (b, at) in enumerate(answers(rollout)):
      g, reward = told[i]
      others = [j for j, (h, _) in enumerate(told) if h == g and j != i]
      base = np.mean([means[j] for j in others])
      outcome = reward - np.mean([told[j][1] for j in others])
      carry, wanted = 0.0, []
      for t in reversed(at):
        carry = float(rollout.process_BT[b, t]) - base + 0.9 * carry
        wanted.insert(0, carry + outcome)
      np.testing.assert_allclose(
        found[b, np.array(at)], wanted, rtol=1e-10, atol=1e-12
      )


def planted_maximum(ratio, advantage, low, high):
  plain = ratio * advantage
  cut = jnp.clip(ratio, 1 - low, 1 + high) * advantage
  return jnp.where(
    advantage < 0, jnp.maximum(plain, cut), jnp.minimum(plain, cut)
  ), cut < plain


def planted_mean_of_means(rollout, aggregate):
  weight, count = WEIGH(rollout, "sequence")
  return weight / weight.shape[0] * count, count


def planted_padding(rollout, aggregate):
  return rollout.mask_BT, jnp.asarray(1.0 * rollout.mask_BT.size)


WEIGH = surrogate.weigh


@pytest.mark.parametrize(
  "name, target, attribute, planted",
  [
    ("grpo", surrogate, "clipped", planted_maximum),
    ("gspo", surrogate, "clipped", planted_maximum),
    ("grpo", surrogate, "weigh", planted_mean_of_means),
    ("dapo", surrogate, "weigh", planted_padding),
    ("cispo", jax.lax, "stop_gradient", lambda x: x),
  ],
)
def test_controls_planted_mistakes_are_noticed(
  name, target, attribute, planted, monkeypatch
):
  monkeypatch.setattr(target, attribute, planted)
  with jax.enable_x64(True), pytest.raises(AssertionError):
    compare(name)
