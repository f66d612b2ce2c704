"""Losses across vocabularies, where they are 0 or hard to keep finite."""

import jax
import jax.numpy as jnp
import numpy as np

from research.losses import aligned_spans, universal
from research.types import Dense, Spans
from tests.research.losses.cases import dense, log_softmax


def said(distribution):
  hidden = np.asarray(distribution.hidden_BTE, float)
  return log_softmax(hidden @ np.asarray(distribution.unembed_VE, float).T)


def test_universal_does_not_ask_which_token():
  student = dense(0)
  shuffled = Dense(student.hidden_BTE, student.unembed_VE[::-1])
  total, _, _ = universal.loss(student, shuffled, jnp.ones((2, 5)))
  np.testing.assert_allclose(total, 0, atol=1e-5)


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
