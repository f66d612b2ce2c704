"""What the candidates leave out costs, and less the more there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import divergence
from research.losses import forward_kl, top_candidates
from research.types import Dense, Sparse
from tests.research.losses.cases import candidates, dense, log_softmax


def spiked(c):
  """A teacher over 100 tokens, and a student with c more at token 50."""
  logits = np.zeros(100)
  logits[:5] = [5, 4, 3, 2, 1]
  teacher = log_softmax(logits)
  best = np.arange(5)[None, None]
  tail = np.log(np.exp(teacher[5:]).sum())[None, None]
  held = best, teacher[:5][None, None], tail
  signal = Sparse(*map(jnp.asarray, held))
  logits[50] += c
  return logits, teacher, signal


@pytest.mark.parametrize(
  "c, bucketed", [(0, 0), (5, 0.099827), (10, 2.643475), (20, 9.735423)]
)
def test_mass_outside_of_the_candidates_costs(c, bucketed):
  """Renormalised over the candidates, all of these would be 0."""
  with jax.enable_x64(True):
    logits, _, signal = spiked(c)
    student = Dense(jnp.ones((1, 1, 1)), jnp.asarray(logits)[:, None])
    total, _, metrics = top_candidates.loss(student, signal, jnp.ones((1, 1)))
    np.testing.assert_allclose(total, bucketed, atol=1e-4)
    outside = 1 - np.exp(log_softmax(logits)[:5]).sum()
    np.testing.assert_allclose(metrics["outside"][0], outside, rtol=1e-9)


def test_candidates_cost_what_is_inside_too():
  """The student has less outside than the teacher: still no gain from it."""
  with jax.enable_x64(True):
    logits, _, signal = spiked(0)
    logits[5:] -= 20
    student = Dense(jnp.ones((1, 1, 1)), jnp.asarray(logits)[:, None])
    total, _, _ = top_candidates.loss(student, signal, jnp.ones((1, 1)))
    assert float(total) > 0.1


@pytest.mark.parametrize("C", [1, 3, 5, 7])
def test_more_candidates_come_closer_to_the_whole(C):
  """Below the KL over the vocabulary, equal to it at C = V, with its slope."""
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, dtype=jnp.float64)
    weights = jnp.linspace(0, 1, 10).reshape(2, 5)

    def total(module, signal):
      f = lambda h: module.loss(Dense(h, student.unembed_VE), signal, weights)[
        0
      ]
      return jax.value_and_grad(f)(student.hidden_BTE)

    whole, slope = total(forward_kl, teacher)
    part, own = total(top_candidates, candidates(teacher, C))
    assert np.isfinite(own).all() and 0 < part <= whole + 1e-12
    if C == 7:
      np.testing.assert_allclose(part, whole, rtol=1e-12)
      np.testing.assert_allclose(own, slope, atol=1e-12)
    else:
      fewer, _ = total(top_candidates, candidates(teacher, max(C - 1, 1)))
      assert fewer <= part < whole


@pytest.mark.parametrize("C", [1, 4, 7])
def test_what_a_teacher_is_asked_for_is_what_it_says(C):
  teacher = dense(1, E=6)
  found = divergence.candidates(teacher, C, block=4)
  expected = candidates(teacher, C)
  np.testing.assert_array_equal(found.ids_BTC, expected.ids_BTC)
  np.testing.assert_allclose(
    found.logprobs_BTC, expected.logprobs_BTC, atol=1e-5
  )
  np.testing.assert_allclose(found.tail_BT, expected.tail_BT, atol=1e-5)
