"""Forms of KL: known values and gradients, safe numbers, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import reference_kl
from research.types import Policy, Trajectory

FORMS = ("k2", "k3", "k3_weighted", "full")


def rollout(logprobs, reference, mask=None):
  x = jnp.asarray([logprobs])
  ones = jnp.ones_like(x)
  ids = ones.astype(int)
  mask = ones if mask is None else jnp.asarray([mask])
  return Trajectory(
    ids,
    jnp.arange(x.shape[1])[None],
    ids,
    mask,
    x,
    2 * ones,
    0 * ids,
    0 * ids,
    0 * ids,
    ref_logprobs_BT=None if reference is None else jnp.asarray([reference]),
  )


def said(x, divergence=None):
  return Policy(x, jnp.zeros_like(x), divergence)


def test_known_values():
  seen = rollout([-1.0, -2, -0.5], [-1.2, -1.5, -0.5])
  of = lambda kl: reference_kl.divergence(kl, said(seen.logprobs_BT), seen)[0]
  np.testing.assert_allclose(
    reference_kl.penalty(seen)[0], [0.2, -0.5, 0], atol=1e-7
  )
  np.testing.assert_allclose(of("k2"), [0.02, 0.125, 0], atol=1e-7)
  np.testing.assert_allclose(of("k3"), [0.018731, 0.148721, 0], atol=1e-6)
  np.testing.assert_allclose(of("k3_weighted"), of("k3"))


LOGITS, REFERENCE = (0.0, 1.0, 2.0), (1.0, 1.0, 0.0)


def expected(f):
  """Sum over the three tokens of pi(y) grad f(log pi, y)."""
  logits = jnp.array(LOGITS)
  p = jax.nn.softmax(logits)
  slope = lambda y: jax.grad(lambda z: f(jax.nn.log_softmax(z), y))(logits)
  return sum(p[y] * slope(y) for y in range(3))


def test_known_gradients():
  """KL(pi || ref) = 0.694840; k1 as a loss has no gradient at all."""
  with jax.enable_x64(True):
    reference = jax.nn.log_softmax(jnp.array(REFERENCE))
    old = jax.nn.log_softmax(jnp.array(LOGITS))

    def kl(logits):
      own = jax.nn.log_softmax(logits)
      return (jnp.exp(own) * (own - reference)).sum()

    value, exact = jax.value_and_grad(kl)(jnp.array(LOGITS))
    np.testing.assert_allclose(value, 0.694840, atol=1e-6)
    np.testing.assert_allclose(
      exact, [-0.201709, -0.303574, 0.505283], atol=1e-6
    )

    def form(name):
      def f(own, y):
        seen = rollout([old[y]], [reference[y]])
        gap = (jnp.exp(own) * (own - reference)).sum()[None, None]
        policy = said(own[y][None, None], gap)
        return reference_kl.divergence(name, policy, seen)[0, 0]

      return expected(f)

    for name in ("k2", "k3_weighted", "full"):
      np.testing.assert_allclose(form(name), exact, atol=1e-10)
    np.testing.assert_allclose(
      form("k3"), [-0.332288, -0.177590, 0.509879], atol=1e-6
    )

    def in_reward(own, y):
      seen = rollout([old[y]], [reference[y]])
      seen = seen.replace(rewards_BT=0 * seen.rewards_BT)
      return -reference_kl.penalised(seen, 1.0)[0, 0] * own[y]

    np.testing.assert_allclose(expected(in_reward), exact, atol=1e-10)
    k1 = expected(lambda own, y: own[y] - reference[y])
    np.testing.assert_allclose(k1, 0, atol=1e-10)


def test_a_reward_pays_for_its_own_answer():
  seen = rollout([-1.0, -2, -0.5, -9], [-1.2, -1.5, -0.5, -1], [1.0, 1, 1, 0])
  seen = seen.replace(segments_BT=jnp.array([[1, 1, 2, 2]]))
  found = reference_kl.penalised(seen, 0.5)
  np.testing.assert_allclose(found[0], [2.15, 2.15, 2, 2], rtol=1e-6)
  same = reference_kl.penalised(seen.replace(ref_logprobs_BT=None), 0.0)
  np.testing.assert_array_equal(same, seen.rewards_BT)


@pytest.mark.parametrize("kl", FORMS[:3])
@pytest.mark.parametrize("far", [-1e4, 1e4, -100.0, 100.0])
def test_log_ratios_far_off_stay_finite(kl, far):
  seen = rollout([-1.0, -1.0], [-1.0, jnp.nan], [1.0, 0])
  f = lambda x: reference_kl.divergence(kl, said(x), seen).sum()
  value, slope = jax.value_and_grad(f)(jnp.array([[far, jnp.nan]]))
  assert np.isfinite(value) and np.isfinite(slope).all()
  assert slope[0, 1] == 0


@pytest.mark.parametrize("kl", FORMS)
def test_what_is_missing_is_named(kl):
  seen = rollout([-1.0], None)
  with pytest.raises(ValueError, match="reference"):
    reference_kl.divergence(kl, said(seen.logprobs_BT), seen)


def test_k1_is_no_loss():
  seen = rollout([-1.0], [-1.0])
  with pytest.raises(ValueError, match="k1 has no gradient"):
    reference_kl.divergence("k1", said(seen.logprobs_BT), seen)  # type: ignore
