"""Losses on a teacher's distribution, against NumPy and TRL."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.losses import (
  forward_kl,
  jsd,
  reverse_kl,
  skewed_kl,
  top_candidates,
  total_variation,
)
from research.types import Dense
from tests.research.losses.cases import (
  candidates,
  dense,
  log_softmax,
  one_token,
)

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


def mixture(share, a, b):
  return np.log(share * np.exp(a) + (1 - share) * np.exp(b))


def kl(a, b):
  return (np.exp(a) * (a - b)).sum(-1)


def bucketed(q, p):
  """KL over the teacher's three likeliest tokens and all others as one."""
  cut = np.argsort(-p, -1)
  pick = lambda x, ids: np.exp(np.take_along_axis(x, ids, -1))
  best = [pick(x, cut[..., :3]) for x in (p, q)]
  rest = [pick(x, cut[..., 3:]).sum(-1, keepdims=True) for x in (p, q)]
  a, b = (np.log(np.concatenate(x, -1)) for x in zip(best, rest, strict=True))
  return kl(a, b)


def heard(module, teacher):
  return candidates(teacher, 3) if module is top_candidates else teacher


WHOLE = {
  "candidates": (top_candidates, {}, bucketed),
  "forward": (forward_kl, {}, lambda q, p: kl(p, q)),
  "reverse": (reverse_kl, {}, lambda q, p: kl(q, p)),
  "jsd": (
    jsd,
    {"beta": 0.3},
    lambda q, p: (
      0.3 * kl(p, mixture(0.3, p, q)) + 0.7 * kl(q, mixture(0.3, p, q))
    ),
  ),
  "jsd at 0": (jsd, {"beta": 0.0}, lambda q, p: kl(p, q)),
  "jsd at 1": (jsd, {"beta": 1.0}, lambda q, p: kl(q, p)),
  "skewed": (
    skewed_kl,
    {"alpha": 0.2},
    lambda q, p: kl(p, mixture(0.2, p, q)),
  ),
  "skewed, in reverse": (
    skewed_kl,
    {"alpha": 0.2, "reverse": True},
    lambda q, p: kl(q, mixture(0.2, q, p)),
  ),
  "total variation": (
    total_variation,
    {},
    lambda q, p: np.abs(np.exp(p) - np.exp(q)).sum(-1) / 2,
  ),
}


def over_vocabulary(divergence, hidden, unembed, teacher, weights):
  """The weighted sum in NumPy, from the student's two arrays."""
  q = log_softmax(hidden @ unembed.T)
  p = log_softmax(
    np.asarray(teacher.hidden_BTE) @ np.asarray(teacher.unembed_VE).T
  )
  return (weights * divergence(q, p)).sum()


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype, rtol", [(jnp.float64, 1e-10), (None, 1e-5)])
def test_values_equal_numpy(name, dtype, rtol):
  module, args, divergence = WHOLE[name]
  with jax.enable_x64(dtype is not None):
    dtype = dtype or jnp.float32
    student, teacher = dense(0, dtype=dtype), dense(1, E=6, dtype=dtype)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    expected = over_vocabulary(
      divergence,
      np.asarray(student.hidden_BTE, float),
      np.asarray(student.unembed_VE, float),
      teacher,
      weights,
    )
    total, _, _ = module.loss(
      student, heard(module, teacher), jnp.asarray(weights, dtype), **args
    )
    np.testing.assert_allclose(total, expected, rtol=rtol)


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_equal_differences_of_numpy(name):
  """Central differences of the reference, in fp64, by hidden and unembed."""
  module, args, divergence = WHOLE[name]
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, dtype=jnp.float64)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    total = lambda h, u: module.loss(
      Dense(h, u), heard(module, teacher), jnp.asarray(weights), **args
    )[0]
    arrays = [np.array(x) for x in (student.hidden_BTE, student.unembed_VE)]
    found = jax.grad(total, (0, 1))(*map(jnp.asarray, arrays))
    reference = lambda: over_vocabulary(divergence, *arrays, teacher, weights)
    for x, got in zip(arrays, found, strict=True):
      for at in np.ndindex(x.shape):
        kept, step = x[at], 1e-6
        x[at] = kept + step
        high = reference()
        x[at] = kept - step
        low, x[at] = reference(), kept
        np.testing.assert_allclose(got[at], (high - low) / 2e-6, atol=2e-9)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_jsd_equals_trl(beta):
  """tests/oracle/trl_worker.py says how these numbers were made."""
  said = json.loads((GOLDEN / "trl_distillation.json").read_text())
  said = said[f"jsd_{beta}"]
  draw = lambda n: np.random.default_rng(n).normal(size=(2, 5, 7)) * 2
  weights = np.ones((2, 5))
  weights[0, 3:], weights[1, 0] = 0, 0
  with jax.enable_x64(True):
    eye = jnp.eye(7)
    teacher = Dense(jnp.asarray(draw(1)), eye)

    def mean(logits):
      total, denominator, _ = jsd.loss(
        Dense(logits, eye), teacher, jnp.asarray(weights), beta=beta
      )
      return total / denominator

    value, grad = jax.value_and_grad(mean)(jnp.asarray(draw(0)))
    np.testing.assert_allclose(value, said["loss"], rtol=1e-6)
    norm = np.linalg.norm(np.asarray(grad))
    np.testing.assert_allclose(norm, said["gradient"], rtol=1e-6)


def test_jsd_between_known_distributions():
  student, teacher = one_token(0.25, 0.75), one_token(0.5, 0.5)
  for beta, known in ((0.1, 0.012752), (0.5, 0.033822), (0.9, 0.011831)):
    total, _, _ = jsd.loss(student, teacher, jnp.ones((1, 1)), beta=beta)
    np.testing.assert_allclose(total, known, atol=1e-6)


@pytest.mark.parametrize("args", [{"beta": -0.1}, {"beta": 1.5}])
def test_a_beta_that_is_no_share_is_refused(args):
  with pytest.raises(ValueError, match="beta"):
    jsd.loss(dense(0), dense(1), jnp.ones((2, 5)), **args)
  with pytest.raises(ValueError, match="alpha"):
    skewed_kl.loss(dense(0), dense(1), jnp.ones((2, 5)), alpha=0.0)


def test_named_directions():
  """Teacher (.5, .5), student (.25, .75): known values, in nats."""
  student, teacher = one_token(0.25, 0.75), one_token(0.5, 0.5)
  one = jnp.ones((1, 1))
  forward, _, _ = forward_kl.loss(student, teacher, one)
  reverse, _, _ = reverse_kl.loss(student, teacher, one)
  np.testing.assert_allclose(forward, 0.143841, atol=1e-6)
  np.testing.assert_allclose(reverse, 0.130812, atol=1e-6)
  hot, _, _ = forward_kl.loss(student, teacher, one, temperature=2.0)
  assert abs(float(hot) - 0.143841) > 1e-3


DENSE = [forward_kl, reverse_kl, jsd, skewed_kl, total_variation]


@pytest.mark.parametrize("module", DENSE)
def test_a_student_that_is_its_teacher_loses_nothing(module):
  same = dense(0)
  total, _, _ = module.loss(same, same, jnp.ones((2, 5)))
  np.testing.assert_allclose(total, 0, atol=1e-5)


@pytest.mark.parametrize("module", DENSE)
def test_certain_distributions_stay_finite(module):
  """Logits 1e4 apart: one probability underflows to exactly 0."""
  sure = Dense(jnp.ones((1, 1, 1)), jnp.array([[0.0], [-1e4]]))
  other = one_token(0.5, 0.5)
  for student, teacher in ((sure, other), (other, sure)):
    grad = jax.grad(
      lambda h, s=student, t=teacher: module.loss(
        Dense(h, s.unembed_VE), t, jnp.ones((1, 1))
      )[0]
    )(student.hidden_BTE)
    assert np.all(np.isfinite(grad))
