"""What policy-gradient losses share: the clip, denominators, terms, metrics."""

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
  expert_iteration,
  grpo,
  gspo,
  ppo,
  prime,
  reinforce,
  rloo,
)
from research.training import metrics
from tests.research.algorithms.rollouts import ROWS, packed

CLIPPED = {
  "grpo": grpo.loss,
  "dr_grpo": functools.partial(dr_grpo.loss, length=1),
  "dapo": functools.partial(dapo.loss, clip_high=0.2),
  "gspo": functools.partial(gspo.loss, clip_low=0.2, clip_high=0.2),
  "ppo": ppo.loss,
  "prime": prime.loss,
}
TAKE_TERMS = (
  cispo, dapo, dr_grpo, grpo, gspo, ppo, prime, reinforce, rloo,
)  # fmt: skip


def of_ratio(loss, ratio, advantage):
  """(loss, its derivative by the ratio) of one sampled token."""
  rollout, said = packed([[(1, 1, 0, 0.0)]], T=2)
  old = jnp.asarray(rollout.old_logprobs_BT)
  advantage_BT = jnp.full((1, 2), advantage)

  def total(r):
    value, count, _ = loss(
      said.replace(logprobs_BT=old + jnp.log(r)), rollout, advantage_BT
    )
    return value / count

  return jax.value_and_grad(total)(ratio)


def planted_maximum(ratio, advantage, low, high):
  """Takes the maximum where the advantage is negative."""
  plain = ratio * advantage
  cut = jnp.clip(ratio, 1 - low, 1 + high) * advantage
  wrong = jnp.maximum(plain, cut)
  return jnp.where(advantage < 0, wrong, jnp.minimum(plain, cut)), cut < plain


CORNERS = [
  (+1.0, 0.5, -0.5, -1),
  (+1.0, 1.0, -1.0, -1),
  (+1.0, 2.0, -1.2, 0),
  (-1.0, 0.5, 0.8, 0),
  (-1.0, 1.0, 1.0, 1),
  (-1.0, 2.0, 2.0, 1),
]


@pytest.mark.parametrize("name", CLIPPED)
def test_the_clip_in_its_corners(name):
  for advantage, ratio, value, slope in CORNERS:
    found = of_ratio(CLIPPED[name], ratio, advantage)
    np.testing.assert_allclose(found, (value, slope), rtol=1e-5, atol=1e-6)


def test_control_a_maximum_for_negative_advantages(monkeypatch):
  monkeypatch.setattr(surrogate, "clipped", planted_maximum)
  with pytest.raises(AssertionError):
    test_the_clip_in_its_corners("grpo")


@pytest.mark.parametrize("ratio, slope", [(0.5, 0.5), (1, 1), (2, 1.28)])
def test_cispo_keeps_a_gradient_where_its_weight_is_bounded(ratio, slope):
  """d loss / d log pi = -min(r, 1.28), so d / d r is that by r."""
  _, found = of_ratio(cispo.loss, float(ratio), 1.0)
  np.testing.assert_allclose(found * ratio, -slope, rtol=1e-5)


def test_gspo_has_one_ratio_a_sequence():
  """Log-ratios of 0.1 and 0.3: 1.221403 on both tokens."""
  rollout, said = packed([[(1, 2, 0, 0.0)]], T=3)
  gaps = jnp.array([[0.1, 0.3, 9.0]])
  advantage_BT = jnp.ones((1, 3))

  def total(now):
    policy = said.replace(logprobs_BT=now)
    return gspo.loss(policy, rollout, advantage_BT, clip_high=9.0)[0]

  value, slope = jax.value_and_grad(total)(rollout.old_logprobs_BT + gaps)
  np.testing.assert_allclose(value, -1.221403, rtol=1e-6)
  np.testing.assert_allclose(slope, [[-1.221403 / 2] * 2 + [0]], rtol=1e-6)


def test_denominators():
  """L = [[1,2,9],[3,4,5]] under [[1,1,0],[1,1,1]]."""
  rollout, said = packed([[(1, 2, 0, 0.0)], [(1, 3, 0, 0.0)]], T=4)
  gain_BT = -jnp.array([[1.0, 2, 9, 9], [3, 4, 5, 9]])

  def mean(aggregate):
    total, count, _ = surrogate.total(said, rollout, gain_BT, aggregate)
    return float(total / count)

  np.testing.assert_allclose(mean("token"), 3.0)
  np.testing.assert_allclose(mean("sum"), 7.5)
  np.testing.assert_allclose(mean("sequence"), 2.75)
  same = said.replace(logprobs_BT=rollout.old_logprobs_BT)
  total, count, _ = dr_grpo.loss(same, rollout, gain_BT, length=4)
  np.testing.assert_allclose(total / count, 1.875, rtol=1e-6)
  with pytest.raises(ValueError, match="tokenn"):
    mean("tokenn")


@pytest.mark.parametrize(
  "loss, short, long",
  [
    (functools.partial(grpo.loss, aggregate="sequence"), 0.25, 0.0625),
    (functools.partial(grpo.loss, aggregate="token"), 0.1, 0.1),
    (functools.partial(dr_grpo.loss, length=8), 0.0625, 0.0625),
  ],
)
def test_what_a_token_of_a_long_answer_weighs(loss, short, long):
  """A = 1, lengths 2 and 8: |d loss / d log pi|."""
  rollout, said = packed([[(1, 2, 0, 0.0)], [(1, 8, 0, 0.0)]], T=9)

  def mean(now):
    policy = said.replace(logprobs_BT=now)
    total, count, _ = loss(policy, rollout, jnp.ones((2, 9)))
    return total / count

  slope = jax.grad(mean)(jnp.asarray(rollout.old_logprobs_BT))
  np.testing.assert_allclose(slope[0, :2], -short, rtol=1e-5)
  np.testing.assert_allclose(slope[1, :8], -long, rtol=1e-5)


def test_overlong_answers_pay_by_their_tokens():
  lengths = jnp.array([5, 16, 18, 20, 25])
  found = dapo.overlong(lengths, limit=20, buffer=4)
  np.testing.assert_allclose(found, [0, 0, -0.5, -1, -1])
  rows = [[(3, 2, 0, 1.0)], [(1, 4, 0, 1.0)], [(2, 1, 0, 1.0)]]
  rollout, _ = packed(rows, T=5)
  assert not np.any(dapo.advantage(rollout))
  found = dapo.advantage(rollout, limit=4, buffer=2)[:, 0]
  np.testing.assert_allclose(found, [0.7071, -1.4142, 0.7071], atol=1e-3)


def test_expert_iteration_keeps_what_is_good_enough():
  rollout, said = packed()
  kept = np.asarray(expert_iteration.advantage(rollout, least=0.5))
  graded = (rollout.group_BT >= 0) & (rollout.segments_BT > 0)
  np.testing.assert_array_equal(kept, graded & (rollout.rewards_BT >= 0.5))
  total, count, told = expert_iteration.loss(said, rollout, kept)
  weight = rollout.mask_BT * kept
  np.testing.assert_allclose(total, -(weight * said.logprobs_BT).sum(), 1e-6)
  assert count == weight.sum() == told["kept"][0] > 0


@pytest.mark.parametrize("module", TAKE_TERMS, ids=lambda m: m.__name__)
def test_no_term_is_dead(module):
  """Each changes the loss and its gradient; what it needs is asked for."""
  rollout, said = packed()
  advantage_BT = module.advantage(rollout)

  def slope(**terms):
    def total(now, entropy):
      policy = said.replace(logprobs_BT=now, entropy_BT=entropy)
      return module.loss(policy, rollout, advantage_BT, **terms)[0]

    return jax.grad(total, (0, 1))(said.logprobs_BT, said.entropy_BT)

  plain = slope()
  for kl in ("k2", "k3", "k3_weighted"):
    assert np.abs(slope(beta=0.1, kl=kl)[0] - plain[0]).max() > 1e-4
  assert np.abs(slope(entropy=0.1)[1] - plain[1]).max() > 1e-4
  assert np.abs(slope(cap=0.5)[0] - plain[0]).max() > 1e-4
  loss = lambda rollout, **terms: module.loss(
    said, rollout, advantage_BT, **terms
  )
  full = loss(rollout, beta=0.1, kl="full")[0] - loss(rollout)[0]
  assert abs(full) > 1e-4
  with pytest.raises(ValueError, match="old_logprobs_BT"):
    loss(rollout.replace(old_logprobs_BT=None), cap=2.0)
  with pytest.raises(ValueError, match="ref_logprobs_BT"):
    loss(rollout.replace(ref_logprobs_BT=None), beta=0.1)


PENALISED = {
  "reinforce": reinforce.advantage,
  "rloo": rloo.advantage,
  "grpo": functools.partial(grpo.advantage, normalize=False),
  "dr_grpo": dr_grpo.advantage,
  "ppo": ppo.advantage,
}


@pytest.mark.parametrize("advantage", PENALISED.values(), ids=PENALISED)
def test_beta_in_the_reward_is_not_dead(advantage):
  rollout, _ = packed()
  plain, paid = (advantage(rollout, beta=b) for b in (0.0, 0.1))
  assert np.abs(plain - paid).max() > 1e-3


def test_a_std_would_take_the_weight_of_beta():
  rollout, _ = packed()
  with pytest.raises(ValueError, match="normalize=False"):
    grpo.advantage(rollout, beta=0.1)


def test_the_first_update_has_a_ratio_of_the_sampler_or_of_the_trainer():
  """Without old_logprobs the policy before its first update is the sampler."""
  rollout, said = packed()
  now = lambda x: said.replace(logprobs_BT=x)
  at = lambda x, rollout: surrogate.log_ratio(now(x), rollout)
  assert not np.any(at(rollout.old_logprobs_BT, rollout))
  bare = rollout.replace(old_logprobs_BT=None)
  assert not np.any(at(rollout.logprobs_BT, bare))
  assert np.any(at(rollout.logprobs_BT, rollout))


def test_metrics_of_the_raw_ratios():
  rollout, said = packed()
  gap = said.logprobs_BT - rollout.logprobs_BT
  ratios = np.exp(gap[rollout.mask_BT > 0])
  told = surrogate.watched(said, rollout)
  means = {name: float(a) / float(b) for name, (a, b) in told.items()}
  wanted = {
    "ratio_min": ratios.min(),
    "ratio_max": ratios.max(),
    "ratio_mean": ratios.mean(),
    "ratio_outside": (np.abs(ratios - 1) > 0.1).mean(),
  }
  for name, value in wanted.items():
    np.testing.assert_allclose(means[name], value, rtol=1e-4)


def test_extremes_of_parts_are_those_of_the_whole():
  """Also of a part in which nothing was sampled."""
  rollout, said = packed()
  whole = surrogate.watched(said, rollout)
  parts = [[ROWS[0]], [[]], ROWS[1:]]
  told = [surrogate.watched(*reversed(packed(rows))) for rows in parts]
  joined = metrics.merge(*told)
  for name, pair in whole.items():
    np.testing.assert_allclose(joined[name], pair, rtol=1e-5)


def test_what_the_sampler_and_what_the_updates_moved_are_told_apart():
  rollout, said = packed()
  k3 = lambda d: np.exp(d) - 1 - d
  mean = lambda x: (rollout.mask_BT * x).sum() / rollout.mask_BT.sum()
  of = lambda r: {
    name: float(x) / float(n)
    for name, (x, n) in surrogate.watched(said, r).items()
  }
  older = rollout.old_logprobs_BT - rollout.logprobs_BT
  moved = said.logprobs_BT - rollout.old_logprobs_BT
  told = of(rollout)
  np.testing.assert_allclose(told["mismatch_kl"], mean(k3(older)), rtol=1e-5)
  np.testing.assert_allclose(told["drift_kl"], mean(k3(moved)), rtol=1e-5)
  bare = of(rollout.replace(old_logprobs_BT=None))
  both = mean(k3(older + moved))
  np.testing.assert_allclose(bare["mismatch_kl"], both, rtol=1e-5)
  assert "drift_kl" not in bare
