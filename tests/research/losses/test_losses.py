"""Every loss of the folder: its contract, then those on written tokens."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.losses
from research.losses import reverse_kl, sampled_reverse_kl, supervised
from research.types import Dense, Sampled
from tests.research.losses.cases import dense, signal_for

MODULES = [
  importlib.import_module(f"research.losses.{m.name}")
  for m in pkgutil.iter_modules(research.losses.__path__)
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_contract(module):
  """(sum, denominator, metrics), blind to what weighs nothing, any blocks."""
  student, signal = dense(0), signal_for(module)
  weights = jnp.array([[1.0, 1, 0, 1, 0], [0, 0, 1, 1, 0]])
  total, denominator, metrics = module.loss(student, signal, weights)
  assert total.shape == denominator.shape == ()
  assert float(denominator) == 5
  assert all(len(pair) == 2 for pair in metrics.values())
  small, _, _ = module.loss(student, signal, weights, block=2)
  np.testing.assert_allclose(total, small, rtol=1e-5)
  hidden = student.hidden_BTE
  loud = Dense(
    jnp.where(weights[..., None] > 0, hidden, 9.0), student.unembed_VE
  )
  again, _, _ = module.loss(loud, signal, weights)
  np.testing.assert_array_equal(total, again)

  def total_of(hidden):
    return module.loss(Dense(hidden, student.unembed_VE), signal, weights)[0]

  grad = jax.grad(total_of)(hidden)
  assert not np.any(grad[weights == 0])
  assert np.all(np.abs(grad[weights > 0]).max(-1) > 0)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_no_weight_is_zero_loss_and_finite_gradient(module):
  student, signal = dense(0), signal_for(module)
  total = lambda h: module.loss(
    Dense(h, student.unembed_VE), signal, jnp.zeros((2, 5))
  )[0]
  value, grad = jax.value_and_grad(total)(student.hidden_BTE)
  assert float(value) == 0 and not np.any(grad)


def test_supervised_on_uniform_logits():
  """Completions of 3 and 4 tokens, V=11: 7 scored tokens, 7 ln 11 in all."""
  student = Dense(jnp.ones((2, 9, 3)), jnp.zeros((11, 3)))
  weights = np.zeros((2, 9), np.float32)
  weights[0, 1:4], weights[1, 4:8] = 1, 1
  signal = Sampled(jnp.ones((2, 9), jnp.int32))
  total, denominator, _ = supervised.loss(student, signal, jnp.asarray(weights))
  np.testing.assert_allclose(total, 16.785267, rtol=1e-6)
  assert float(denominator) == 7


def test_sampled_reverse_kl_has_the_exact_gradient_in_expectation():
  """Sum over the vocabulary of pi(y) times the gradient: KL(q || p)'s own."""
  with jax.enable_x64(True):
    logits = jnp.array([0.0, 1.0, 2.0], jnp.float64)
    teacher = jax.nn.log_softmax(jnp.array([1.0, 1.0, 0.0], jnp.float64))

    def kl(logits):
      q = jax.nn.log_softmax(logits)
      return (jnp.exp(q) * (q - teacher)).sum()

    def sampled(logits, token):
      student = Dense(jnp.ones((1, 1, 1), jnp.float64), logits[:, None])
      signal = Sampled(jnp.full((1, 1), token), teacher[token][None, None])
      return sampled_reverse_kl.loss(student, signal, jnp.ones((1, 1)))[0]

    q = jax.nn.softmax(logits)
    expected = sum(q[y] * jax.grad(sampled)(logits, y) for y in range(3))
    known = [-0.201709, -0.303574, 0.505283]
    np.testing.assert_allclose(expected, jax.grad(kl)(logits), atol=1e-10)
    np.testing.assert_allclose(expected, known, atol=1e-6)
    exact = jax.grad(
      lambda x: reverse_kl.loss(
        Dense(jnp.ones((1, 1, 1), jnp.float64), x[:, None]),
        Dense(jnp.ones((1, 1, 1), jnp.float64), teacher[:, None]),
        jnp.ones((1, 1)),
      )[0]
    )(logits)
    np.testing.assert_allclose(exact, known, atol=1e-6)


def test_sampled_reverse_kl_wants_the_teachers_numbers():
  signal = Sampled(jnp.zeros((2, 5), jnp.int32))
  with pytest.raises(ValueError, match="log-probability"):
    sampled_reverse_kl.loss(dense(0), signal, jnp.ones((2, 5)))
