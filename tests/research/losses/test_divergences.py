"""Losses on a teacher's distribution, against TRL and known values."""

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
  total_variation,
)
from research.types import Dense
from tests.research.losses.cases import dense, one_token

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


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
  # At 2 the student is (.366025, .633975): 4 times 0.037252.
  hot, _, _ = forward_kl.loss(student, teacher, one, temperature=2.0)
  np.testing.assert_allclose(hot, 0.149009, atol=1e-6)


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
