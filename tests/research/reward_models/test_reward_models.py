"""Reward models: TRL's numbers, hand-made ones, and what they must not see."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.reward_models import implicit, outcome, pairwise, process
from research.types import Batch, Pairs, Policy, Steps, Trajectory
from tests.conftest import GOLDEN
from tests.oracle import drawn


def packed():
  """Answers of 2, 3 and 1 tokens behind prompts of 1, 2, 1; one ungraded."""
  row = lambda *x: jnp.asarray([x])
  values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 10)))
  ids = row(1, 1, 1, 2, 2, 2, 2, 2, 3, 3)
  mask = row(1.0, 1, 0, 0, 1, 1, 1, 0, 0, 0)
  return Trajectory(
    tokens_BT=0 * ids,
    positions_BT=row(0, 1, 2, 0, 1, 2, 3, 4, 0, 1),
    segments_BT=ids,
    mask_BT=mask,
    logprobs_BT=values[:1],
    rewards_BT=row(1.0, 1, 1, 0, 0, 0, 0, 0, 1, 1),
    group_BT=row(0, 0, 0, 0, 0, 0, 0, 0, -1, -1),
    truncated_BT=0 * ids,
    version_BT=0 * ids,
    ref_logprobs_BT=values[1:],
  )


def entropy(score, label):
  return np.log1p(np.exp(-score)) if label else np.log1p(np.exp(score))


def test_an_outcome_is_read_at_the_last_token_of_graded_answers():
  with jax.enable_x64(True):
    scores = jnp.asarray(np.random.default_rng(1).normal(size=(1, 10)))
    total = lambda s: outcome.loss(s, packed())[0]
    value, slope = jax.value_and_grad(total)(scores)
    wanted = entropy(scores[0, 2], True) + entropy(scores[0, 7], False)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    assert set(np.flatnonzero(slope[0])) == {2, 7}
    _, count, metrics = outcome.loss(scores, packed())
    assert count == 2
    right = int(scores[0, 2] > 0) + int(scores[0, 7] < 0)
    assert metrics["accuracy"] == (right, 2)


def test_a_process_is_read_at_the_ends_of_its_steps():
  """A label may be a share; its gradient is sigmoid(score) - label."""
  with jax.enable_x64(True):
    rollout = packed()
    scores = jnp.asarray(np.random.default_rng(1).normal(size=(1, 10)))
    labels = jnp.zeros((1, 10)).at[0, 1].set(1.0).at[0, 6].set(0.25)
    ends = jnp.zeros((1, 10)).at[0, jnp.array([1, 4, 6])].set(1.0)
    steps = Steps(
      rollout.tokens_BT,
      rollout.positions_BT,
      rollout.segments_BT,
      labels,
      ends,
    )
    slope = jax.grad(lambda s: process.loss(s, steps)[0])(scores)
    wanted = np.asarray(ends * (jax.nn.sigmoid(scores) - labels))
    np.testing.assert_allclose(slope, wanted, atol=1e-12)
    assert process.loss(scores, steps)[1] == 3
    loud = jnp.where(ends > 0, scores, jnp.inf)
    assert process.loss(loud, steps)[0] == process.loss(scores, steps)[0]


def pairs_of_rows():
  """Three pairs, one a row, read at column 3."""
  ids = jnp.ones((3, 5), int).at[:, 4].set(0)
  t = jnp.arange(5)[None] * ids
  rows = Batch(0 * ids, (ids * (t < 3) * 1.0), t, ids)
  return Pairs(rows, rows)


def test_bradley_terry_equals_trl():
  said = json.loads((GOLDEN / "trl_algorithms.json").read_text())["reward"]
  scores = drawn.pairs()[0][:, 0]
  with jax.enable_x64(True):
    at = lambda x: jnp.full((3, 5), 7.0).at[:, 3].set(jnp.asarray(x))

    def mean(first, second):
      total, count, _ = pairwise.loss(first, second, pairs_of_rows())
      return total / count

    args = at(scores[:3]), at(scores[3:])
    value, slopes = jax.value_and_grad(mean, (0, 1))(*args)
    np.testing.assert_allclose(value, said["loss"], rtol=1e-6)
    found = np.concatenate([np.asarray(s)[:, 3] for s in slopes])
    np.testing.assert_allclose(found, np.ravel(said["gradient"]), atol=1e-9)
    assert not any(np.delete(s, 3, axis=1).any() for s in slopes)


def test_the_implicit_model_is_fitted_to_outcomes():
  """Per answer: the cross-entropy of beta sum log phi / ref."""
  with jax.enable_x64(True):
    rollout = packed()
    logp = jnp.asarray(np.random.default_rng(2).normal(size=(1, 10)))
    said = lambda x: Policy(x, jnp.zeros_like(x))
    total = lambda x: implicit.loss(said(x), rollout, beta=0.5)[0]
    gap = np.asarray(rollout.mask_BT * (logp - rollout.ref_logprobs_BT))[0]
    first, second = 0.5 * gap[:3].sum(), 0.5 * gap[3:8].sum()
    value, slope = jax.value_and_grad(total)(logp)
    wanted = entropy(first, True) + entropy(second, False)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(slope[0, 0], 0.5 * (sigmoid(first) - 1))
    np.testing.assert_allclose(slope[0, 4], 0.5 * sigmoid(second))
    assert implicit.loss(said(logp), rollout)[1] == 2
    worth = implicit.reward(logp, rollout.ref_logprobs_BT, beta=0.5)
    np.testing.assert_allclose((rollout.mask_BT * worth)[0, :3].sum(), first)
  with pytest.raises(ValueError, match="ref_logprobs_BT"):
    implicit.loss(said(logp), rollout.replace(ref_logprobs_BT=None))
