"""Expected gradients, summed over all groups, against their true objectives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import groups
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
from tests.research.algorithms.tabular import (
  Space,
  along,
  behind_a_prompt,
  expected,
  policy,
  trajectory,
)

ONE, TWO, THREE = Space(1), Space(2), Space(3)
BETA = 0.3


def rewards(space):
  return jnp.asarray(np.random.default_rng(7).normal(size=len(space.answers)))


def moved(space):
  """A policy some updates away from the one that samples."""
  return space.drawn(0, 8) + 0.3 * space.drawn(5, 8)


def gradient(
  module, space, *, size=2, args=None, terms=None, now=None, won=None, **more
):
  """Minus the expected gradient of a loss's sum over the size of its group.

  Of the policy that samples, or of one that it has become, `now`; rewards are
  `won`. `more` are functions of the answers that fill a trajectory's fields.
  """
  old, reference = space.drawn(0, 8), space.drawn(1, 8)
  won = rewards(space) if won is None else won

  def one(table, i):
    seen = {name: f(i) for name, f in more.items()}
    rollout = trajectory(space, i, old, won, **seen)
    advantage = module.advantage(rollout, **(args or {}))
    said = policy(space, i, table, reference)
    return module.loss(said, rollout, advantage, **(terms or {}))[0] / size

  total = lambda table: expected(lambda i: one(table, i), space, old, size)
  return -jax.jit(jax.grad(total))(old if now is None else now)


def reference_along(space):
  logp = jax.nn.log_softmax(space.drawn(1, 8))
  return lambda i: along(space, i, logp)


def critic_along(space, values=None):
  values = space.drawn(3) if values is None else values
  return lambda i: behind_a_prompt(values[jnp.asarray(space.at)[i]])


def true(space, beta=0.0, values=None):
  """The gradient of E[R] less beta KL(pi || ref) between whole answers."""
  values = rewards(space) if values is None else values

  def objective(table):
    gap = space.log_prob(table) - space.log_prob(space.drawn(1, 8))
    return space.mean(table, values - beta * gap)

  return jax.jit(jax.grad(objective))(space.drawn(0, 8))


def same(found, wanted, atol=1e-10):
  np.testing.assert_allclose(found, wanted, atol=atol)
  assert np.abs(wanted).max() > 1e-3


# name: (module, arguments, its share of the true gradient in groups of two)
ESTIMATORS = {
  "reinforce": (reinforce, {}, 1),
  "rloo": (rloo, {}, 1),
  "grpo": (grpo, {"normalize": False}, 1 / 2),
  "dr_grpo": (dr_grpo, {}, 1 / 2),
  "ppo": (ppo, {"lam": 1.0}, 1),
}


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_policy_gradient_is_exact(name, beta):
  """Over all pairs of 57 answers; k1 in the reward is KL of whole answers."""
  module, args, share = ESTIMATORS[name]
  with jax.enable_x64(True):
    more = {"ref_logprobs_BT": reference_along(TWO)}
    if module is ppo:
      more["values_BT"] = critic_along(TWO)
    found = gradient(
      module,
      TWO,
      args=args | {"beta": beta},
      **more,
    )
    same(found, share * true(TWO, beta))
    if beta:
      assert np.abs(found - share * true(TWO)).max() > 1e-3


def beside_another(space, scores, delta=1e-4):
  """What an answer's standard score is, on average over who it is beside.

  Of two the mean lies half their gap away from each, and so does the std.
  """
  half = (scores[:, None] - scores[None]) / 2
  p = jnp.exp(space.log_prob(space.drawn(0, 8)))
  return (half / (jnp.abs(half) + delta)) @ p


def lengths(space):
  return jnp.asarray(space.mask.sum(-1))


OVERLONG = {"limit": 3, "buffer": 2, "penalty": 0.7}
# name: (module, its arguments, the loss's, what each answer gives up by its
# length, what its length divides)
STANDARD = {
  "grpo": (grpo, {}, {}, lambda n: 0, lambda n: 1),
  "grpo_sequence": (
    grpo,
    {},
    {"aggregate": "sequence"},
    lambda n: 0,
    lambda n: n,
  ),
  "dapo": (dapo, {}, {}, lambda n: 0, lambda n: 1),
  "dapo_overlong": (
    dapo,
    OVERLONG,
    {},
    lambda n: 0.7 * (n - 1) / 2,
    lambda n: 1,
  ),
  "gspo": (gspo, {}, {}, lambda n: 0, lambda n: n),
  "cispo": (cispo, {}, {}, lambda n: 0, lambda n: 1),
}


@pytest.mark.parametrize("name", STANDARD)
def test_a_standard_score_climbs_how_often_one_beats_another(name):
  """Over pairs: E[f(R, R')], the other drawn by a policy that stands still.

  f is the sign of R - R', but for delta: no gradient of E[R]. A mean over each
  sequence's tokens makes it one of E[f / length].
  """
  module, args, terms, fine, divided = STANDARD[name]
  with jax.enable_x64(True):
    n = lengths(TWO)
    values = beside_another(TWO, rewards(TWO) - fine(n)) / divided(n)
    found = gradient(module, TWO, args=args, terms=terms)
    same(found, true(TWO, values=values))
    assert np.abs(found - true(TWO)).max() > 1e-3


@pytest.mark.parametrize("module", [grpo, dapo, gspo, cispo])
@pytest.mark.parametrize("chance", ["rare", "common"])
def test_a_standard_score_weighs_a_prompt_by_its_chance(module, chance):
  """Right or wrong in groups of four: the gradient of p, times a weight of p.

  k of three others are right, by a binomial law.
  """
  with jax.enable_x64(True):
    worth = rewards(ONE) * (1 if chance == "rare" else -1)
    right = (worth >= jnp.sort(worth)[-2]).astype(float)
    right = right if chance == "rare" else 1 - right
    p = float(ONE.mean(ONE.drawn(0, 8), right))
    assert (p < 0.3) == (chance == "rare") and 0.02 < p < 0.98

    def score(own, others):
      mean = (own + others) / 4
      std = math.sqrt(mean * (1 - mean))
      return (own - mean) / (std + 1e-4) if std else 0.0

    weight = sum(
      math.comb(3, k) * p**k * (1 - p) ** (3 - k) * (score(1, k) - score(0, k))
      for k in range(4)
    )
    found = gradient(module, ONE, size=4, won=right)
    same(found, weight * true(ONE, values=right))
    assert abs(weight - 1) > 0.2


def test_away_from_its_sampler_gspo_climbs_the_mean_ratio_of_a_sequence():
  with jax.enable_x64(True):
    old = TWO.log_prob(TWO.drawn(0, 8))
    values = beside_another(TWO, rewards(TWO))

    def objective(table):
      s = jnp.exp((TWO.log_prob(table) - old) / lengths(TWO))
      return (jnp.exp(old) * s * values).sum()

    wide = {"clip_low": 1.0, "clip_high": 1e9}
    found = gradient(gspo, TWO, terms=wide, now=moved(TWO))
    same(found, jax.grad(objective)(moved(TWO)))


@pytest.mark.parametrize("high", [1e9, 0.2])
def test_away_from_its_sampler_cispo_is_unbiased_up_to_its_bound(high):
  """Answers of one token; beyond the bound a weight is less than the ratio."""
  with jax.enable_x64(True):
    old, now = ONE.log_prob(ONE.drawn(0, 8)), ONE.log_prob(moved(ONE))
    weight = jnp.minimum(jnp.exp(now - old), 1 + high)
    values = beside_another(ONE, rewards(ONE)) * jnp.exp(old) * weight
    climbed = lambda table: (values * ONE.log_prob(table)).sum()
    found = gradient(cispo, ONE, terms={"clip_high": high}, now=moved(ONE))
    same(found, jax.grad(climbed)(moved(ONE)))
    unbiased = beside_another(ONE, rewards(ONE))
    true_ = jax.grad(lambda table: ONE.mean(table, unbiased))(moved(ONE))
    assert (np.abs(found - true_).max() > 1e-3) == (high < 1)


def test_expert_iteration_climbs_the_share_of_what_is_kept():
  with jax.enable_x64(True):
    kept = (rewards(THREE) >= 0.5).astype(float)
    found = gradient(expert_iteration, THREE, size=1, args={"least": 0.5})
    same(found, true(THREE, values=kept))


def test_gae_has_no_bias_with_a_true_critic():
  """With V = E[R | prefix] any lambda will do; with another only 1."""
  with jax.enable_x64(True):
    old = TWO.drawn(0, 8)
    p = jnp.exp(TWO.log_prob(old))[:, None] * TWO.mask
    zeros = jnp.zeros(len(TWO.prefixes))
    won = zeros.at[TWO.at].add(p * rewards(TWO)[:, None])
    by = lambda values: gradient(
      ppo,
      TWO,
      size=1,
      args={"lam": 0.3},
      values_BT=critic_along(TWO, values),
    )
    same(by(won / TWO.visits(old)), true(TWO))
    assert np.abs(by(TWO.drawn(3)) - true(TWO)).max() > 1e-3


def test_ppo_learns_from_rewards_of_tokens():
  with jax.enable_x64(True):
    worth = TWO.drawn(4, 8)
    whole = (TWO.mask * TWO.said(worth, slice(None))).sum(-1)
    found = gradient(
      ppo,
      TWO,
      size=1,
      args={"lam": 1.0},
      values_BT=critic_along(TWO),
      process_BT=lambda i: along(TWO, i, worth),
    )
    same(found, true(TWO, values=rewards(TWO) + whole))


def test_prime_is_the_gradient_of_outcome_and_process():
  """Its baseline of the process rewards is a price on each token."""
  with jax.enable_x64(True):
    worth = TWO.drawn(4, 8)
    process = TWO.mask * TWO.said(worth, slice(None))
    price = TWO.mean(TWO.drawn(0, 8), process.sum(-1) / TWO.mask.sum(-1))
    whole = rewards(TWO) + (process - price * TWO.mask).sum(-1)
    found = gradient(prime, TWO, process_BT=lambda i: along(TWO, i, worth))
    same(found, true(TWO, values=whole))


def kept_prefixes(space, old, forward=False):
  """The gradient of each token's KL, at the prefixes that `old` comes by."""
  visits = jax.lax.stop_gradient(space.visits(old))
  reference = jax.nn.log_softmax(space.drawn(1, 8))

  def objective(table):
    own = jax.nn.log_softmax(table)
    a, b = (reference, own) if forward else (own, reference)
    return (visits * (jnp.exp(a) * (a - b)).sum(-1)).sum()

  return jax.jit(jax.grad(objective))


def of_kl(space, kl, table, old):
  """The expected gradient of a KL term on samples of `old`, at `table`."""

  def one(table, i):
    reference = space.drawn(1, 8)
    rollout = trajectory(
      space, i, old, rewards(space), ref_logprobs_BT=reference_along(space)(i)
    )
    said = policy(space, i, table, reference)
    nothing = jnp.zeros_like(rollout.mask_BT)
    terms = {"kl": kl, "beta": BETA}
    return rloo.loss(said, rollout, nothing, **terms)[0]

  total = lambda table: expected(lambda i: one(table, i), space, old, 1)
  return jax.jit(jax.grad(total))(table)


@pytest.mark.parametrize("kl", ["k2", "k3", "k3_weighted", "full"])
def test_each_form_of_kl_has_its_gradient(kl):
  with jax.enable_x64(True):
    old = THREE.drawn(0, 8)
    found = of_kl(THREE, kl, old, old)
    reverse = BETA * kept_prefixes(THREE, old)(old)
    forward = BETA * kept_prefixes(THREE, old, forward=True)(old)
    same(found, forward if kl == "k3" else reverse)
    assert np.abs(forward - reverse).max() > 1e-3


@pytest.mark.parametrize("kl", ["k3_weighted", "full", "k2"])
def test_kl_on_samples_of_another_policy(kl):
  """k2 has no ratio: what another policy sampled misleads it."""
  with jax.enable_x64(True):
    old, now = THREE.drawn(0, 8), moved(THREE)
    wanted = BETA * kept_prefixes(THREE, old)(now)
    found = of_kl(THREE, kl, now, old)
    if kl == "k2":
      assert np.abs(found - wanted).max() > 1e-3
    else:
      same(found, wanted)


def test_the_entropy_bonus_has_the_gradient_of_each_tokens_entropy():
  with jax.enable_x64(True):
    old = THREE.drawn(0, 8)
    visits = THREE.visits(old)

    def objective(table):
      logp = jax.nn.log_softmax(table)
      return -(visits * (jnp.exp(logp) * logp).sum(-1)).sum()

    def one(table, i):
      rollout = trajectory(THREE, i, old, rewards(THREE))
      nothing = jnp.zeros_like(rollout.mask_BT)
      said = policy(THREE, i, table)
      return rloo.loss(said, rollout, nothing, entropy=BETA)[0]

    total = lambda table: expected(lambda i: one(table, i), THREE, old, 1)
    found = -jax.jit(jax.grad(total))(old)
    same(found, BETA * jax.grad(objective)(old))


@pytest.mark.parametrize("cap", [1e9, 1.0])
def test_another_sampler_is_made_good_up_to_the_cap(cap):
  """Answers of one token, drawn from a law that is not the trainer's."""
  with jax.enable_x64(True):
    one = Space(1)
    now, sampler = one.drawn(0, 8), one.drawn(5, 8)

    def value(table, i):
      old = along(one, i, jax.nn.log_softmax(now))
      rollout = trajectory(one, i, sampler, rewards(one), old_logprobs_BT=old)
      said = policy(one, i, table)
      return rloo.loss(said, rollout, rollout.rewards_BT, cap=cap)[0]

    total = lambda table: expected(lambda i: value(table, i), one, sampler, 1)
    found, wanted = -jax.jit(jax.grad(total))(now), true(one)
    if cap > 1:
      same(found, wanted)
    else:
      assert np.abs(found - wanted).max() > 1e-3


def test_controls_a_baseline_that_knows_the_sample_is_noticed(monkeypatch):
  centred = lambda rollout, scores, *_: groups.centred(rollout, scores)
  monkeypatch.setattr(groups, "left_out", centred)
  with pytest.raises(AssertionError):
    test_the_policy_gradient_is_exact("rloo", 0.0)
  with pytest.raises(AssertionError):
    test_prime_is_the_gradient_of_outcome_and_process()
