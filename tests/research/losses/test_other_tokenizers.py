"""Losses across vocabularies, against NumPy in fp64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.losses import aligned_spans, universal
from research.types import Dense, Spans
from tests.research.losses.cases import dense, log_softmax


def said(distribution):
  hidden = np.asarray(distribution.hidden_BTE, float)
  return log_softmax(hidden @ np.asarray(distribution.unembed_VE, float).T)


@pytest.mark.parametrize("V", [5, 7, 11])
def test_universal_equals_numpy(V):
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, V=V, dtype=jnp.float64)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    expected = np.zeros((2, 5, max(7, V)))
    expected[..., :7] = -np.sort(-np.exp(said(student)))
    expected[..., :V] -= -np.sort(-np.exp(said(teacher)))
    total, denominator, _ = universal.loss(
      student, teacher, jnp.asarray(weights)
    )
    found = (weights * np.abs(expected).sum(-1)).sum()
    np.testing.assert_allclose(total, found, rtol=1e-10)
    np.testing.assert_allclose(denominator, 5)


def test_universal_does_not_ask_which_token():
  student = dense(0)
  shuffled = Dense(student.hidden_BTE, student.unembed_VE[::-1])
  total, _, _ = universal.loss(student, shuffled, jnp.ones((2, 5)))
  np.testing.assert_allclose(total, 0, atol=1e-5)


def bernoulli(p, q):
  return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


@pytest.mark.parametrize("tau", [1.0, 5.0])
def test_spans_equal_numpy(tau):
  """Spans of two, one and two tokens; in the second row the last is in none."""
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    targets = np.random.default_rng(0).integers(0, 7, (2, 5))
    spans = np.array([[1, 1, 2, 3, 3], [1, 2, 2, 2, 0]])
    theirs = np.array([[-1.0, -1, -0.3, -2, -2], [-0.5, -3, -3, -3, 0]])
    weights = np.array([[1.0, 1, 1, 0.5, 0.5], [0, 1, 1, 1, 1]])
    signal = Spans(*map(jnp.asarray, (targets, spans, theirs)))
    logp = np.take_along_axis(said(student), targets[..., None], -1)[..., 0]
    expected = count = 0.0
    for b, first, stop in ((0, 0, 2), (0, 2, 3), (0, 3, 5), (1, 1, 4)):
      p, q = theirs[b, first] / tau, logp[b, first:stop].sum() / tau
      expected += weights[b, first] * bernoulli(np.exp(p), np.exp(q))
      count += weights[b, first]

    def loss(unembed):
      own = Dense(student.hidden_BTE, unembed)
      return aligned_spans.loss(
        own, signal, jnp.asarray(weights), temperature=tau
      )[:2]

    total, denominator = loss(student.unembed_VE)
    np.testing.assert_allclose(total, expected, rtol=1e-10)
    assert float(denominator) == count
    slope = jax.grad(lambda u: loss(u)[0])(student.unembed_VE)
    step = np.zeros(student.unembed_VE.shape)
    step[2, 1] = 1e-6
    high, low = (loss(student.unembed_VE + s * step)[0] for s in (1, -1))
    np.testing.assert_allclose(slope[2, 1], (high - low) / 2e-6, rtol=1e-6)


def test_a_student_that_says_what_the_teacher_says_loses_nothing():
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    targets = np.random.default_rng(1).integers(0, 7, (2, 5))
    logp = np.take_along_axis(said(student), targets[..., None], -1)[..., 0]
    spans = np.tile(np.arange(1, 6), (2, 1))
    signal = Spans(*map(jnp.asarray, (targets, spans, logp)))
    f = lambda h: aligned_spans.loss(
      Dense(h, student.unembed_VE), signal, jnp.ones((2, 5))
    )[0]
    value, grad = jax.value_and_grad(f)(student.hidden_BTE)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    np.testing.assert_allclose(grad, 0, atol=1e-12)


def test_certain_spans_stay_finite():
  sure = Dense(jnp.ones((1, 2, 1)), jnp.array([[0.0], [-1e4]]))
  for targets in (0, 1):
    ids = jnp.full((1, 2), targets)
    signal = Spans(ids, jnp.array([[1, 1]]), jnp.zeros((1, 2)))
    f = lambda h, s=signal: aligned_spans.loss(
      Dense(h, sure.unembed_VE), s, jnp.ones((1, 2)), temperature=1.0
    )[0]
    value, grad = jax.value_and_grad(f)(sure.hidden_BTE)
    assert np.isfinite(value) and np.isfinite(grad).all()
