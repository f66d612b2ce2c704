"""Objectives of reinforcement, preferences and reward models, on a model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import scoring
from research.algorithms import grpo, ppo
from research.models import presets, transformer
from research.preferences import dpo
from research.reward_models import implicit, outcome, pairwise, process
from research.training import objectives
from research.training import step as steps
from research.types import Batch, Pairs, Steps, Trajectory

MODEL = presets.make("tiny", vocab=11, width=16, layers=1, mlp=16)
B, T = 4, 8


def rows():
  """Two segments a row, of five tokens and of two; one of padding."""
  ids = jnp.asarray([[1] * 5 + [2] * 2 + [0]] * B)
  t = jnp.asarray([[0, 1, 2, 3, 4, 0, 1, 0]] * B)
  mask = jnp.asarray([[0.0, 1, 1, 1, 0, 1, 0, 0]] * B)
  tokens = jax.random.randint(jax.random.key(0), (B, T), 0, 11)
  return tokens, t, ids, mask


def rollout(rewards=None):
  tokens, t, ids, mask = rows()
  zeros = jnp.zeros((B, T))
  value = zeros if rewards is None else rewards
  first, second = jax.random.normal(jax.random.key(1), (2, B, T))
  return Trajectory(
    tokens, t, ids, mask, first, value, 0 * ids, zeros, 0 * ids,
    ref_logprobs_BT=second,
    values_BT=zeros,
  )  # fmt: skip


def drawn(seed):
  return transformer.init(MODEL, jax.random.key(seed))


def scored(seed):
  params = scoring.init(MODEL, drawn(seed))
  head_D = jax.random.normal(jax.random.key(9), (MODEL.width,))
  return params | {"head_D": head_D}


def dense(params, temperature):
  """All log-probabilities [B, T, V], the plain way."""
  said = objectives.speak(MODEL, params, rollout())
  logits = jnp.einsum("BTE,VE->BTV", said.hidden_BTE, said.unembed_VE)
  return jax.nn.log_softmax(logits / temperature)


def test_the_reference_stands_beside_the_policy():
  """KL over the vocabulary at the sampling temperature; no gradient to it."""
  own, other = drawn(0), drawn(1)
  score = functools.partial(objectives.score, MODEL, rows=rollout())
  said = score(own, temperature=0.7, reference=(MODEL, other), block=8)
  a, b = dense(own, 0.7), dense(other, 0.7)
  wanted = (jnp.exp(a) * (a - b)).sum(-1)
  np.testing.assert_allclose(said.divergence_BT, wanted, rtol=1e-4, atol=1e-5)
  assert score(own).divergence_BT is None
  same = score(own, reference=(MODEL, own)).divergence_BT
  np.testing.assert_allclose(same, 0, atol=1e-6)


def test_a_reference_is_frozen():
  loss = functools.partial(grpo.loss, kl="full", beta=0.5)
  objective = objectives.policy_gradient(
    MODEL, loss, temperature=1.0, reference=MODEL
  )
  inputs = rollout(), jnp.zeros((B, T))
  total = lambda own, other: objective(own, other, inputs)[0]
  own, other = jax.grad(total, (0, 1))(drawn(0), drawn(1))
  size = lambda tree: max(np.abs(x).max() for x in jax.tree.leaves(tree))
  assert size(own) > 1e-3 and size(other) == 0


def test_a_critic_learns_what_answers_are_worth():
  """Values at t are of the tokens up to t."""
  objective = objectives.critic(MODEL, ppo.value_loss)
  params = scored(1)
  inputs = rollout(), jnp.ones((B, T))
  grads = jax.grad(lambda p: objective(p, None, inputs)[0])(params)
  heads = grads["head_D"], grads["offset"]
  assert all(np.abs(g).max() > 1e-3 for g in heads)
  values = scoring.apply(MODEL, params, rollout())
  tokens = rollout().tokens_BT
  later = dataclasses.replace(
    rollout(), tokens_BT=tokens.at[:, 3].set((tokens[:, 3] + 1) % 11)
  )
  changed = scoring.apply(MODEL, params, later)
  moved = np.abs(changed - values).max(0) > 0
  np.testing.assert_array_equal(moved, [0, 0, 0, 1, 1, 0, 0, 0])


def pairs():
  tokens, t, ids, mask = rows()
  one = Batch(tokens, mask, t, ids)
  two = Batch((tokens + 3) % 11, mask, t, ids)
  zeros = jnp.zeros((B, T))
  return Pairs(one, two, zeros, zeros)


def trained(name):
  """(objective, parameters, inputs) of what is no policy gradient."""
  tokens, t, ids, _ = rows()
  if name == "dpo":
    return objectives.preference(MODEL, dpo.loss), drawn(0), pairs()
  if name == "pairwise":
    return objectives.reward_model(MODEL, pairwise.loss), scored(0), pairs()
  right = jnp.asarray([[1.0] * T, [0.0] * T] * (B // 2))
  if name == "outcome":
    return (
      objectives.reward_model(MODEL, outcome.loss),
      scored(0),
      rollout(right),
    )
  if name == "implicit":
    loss = functools.partial(implicit.loss, beta=1.0)
    objective = objectives.implicit_reward(MODEL, loss)
    return objective, drawn(0), rollout(right)
  ends = jnp.zeros((B, T)).at[:, jnp.array([2, 4])].set(1.0)
  judged = Steps(tokens, t, ids, right, ends)
  return objectives.reward_model(MODEL, process.loss), scored(0), judged


NAMES = ("dpo", "pairwise", "outcome", "implicit", "process")
FAST = ("dpo", "process")  # a policy beside its reference, and a scored one


@pytest.mark.parametrize(
  "name",
  [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in NAMES],
)
def test_training_lowers_the_loss_and_parts_change_nothing(name):
  objective, params, inputs = trained(name)

  def mean(microbatches, params):
    grads, total, count, told = steps.accumulate(
      objective, params, None, inputs, microbatches
    )
    return jax.tree.map(lambda g: g / count, grads), total / count, told

  whole = jax.jit(functools.partial(mean, 1))
  first, before, told = whole(params)
  again, same, _ = jax.jit(functools.partial(mean, 2))(params)
  np.testing.assert_allclose(before, same, rtol=1e-5)
  for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
    assert np.abs(a - b).max() <= 2e-5 * (np.abs(a).max() + 1e-3)
  for _ in range(10):
    slope, value, told = whole(params)
    params = jax.tree.map(lambda p, g: p - 0.3 * g, params, slope)
  assert value < 0.9 * before
  assert told["accuracy"][0] / told["accuracy"][1] > 0.5
