"""Each loss against dense fp64 references, exact gradients, invariances."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.losses
from research.losses import (
  forward_kl,
  reverse_kl,
  sampled_reverse_kl,
  supervised,
)
from research.types import Dense, Sampled

MODULES = [
  importlib.import_module(f"research.losses.{m.name}")
  for m in pkgutil.iter_modules(research.losses.__path__)
]


def dense(seed, B=2, T=5, E=4, V=7, dtype=jnp.float32):
  a, b = jax.random.split(jax.random.key(seed))
  return Dense(
    jax.random.normal(a, (B, T, E), dtype),
    jax.random.normal(b, (V, E), dtype),
  )


def signal_for(module, seed=1, **shape):
  """What each loss listens to: a whole distribution, or sampled tokens."""
  if module in (forward_kl, reverse_kl):
    return dense(seed, E=6, **shape)
  B, T, V = shape.get("B", 2), shape.get("T", 5), 7
  targets = jax.random.randint(jax.random.key(seed), (B, T), 0, V)
  return Sampled(targets, -jnp.ones((B, T)))


def one_token(*probs):
  """A distribution over a few tokens at one place."""
  logits = jnp.log(jnp.array(probs))
  return Dense(jnp.ones((1, 1, 1)), logits[:, None])


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


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("module, sign", [(forward_kl, 0), (reverse_kl, 1)])
def test_kl_equals_numpy_in_fp64(module, sign):
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, dtype=jnp.float64)
    logits = [
      log_softmax(np.asarray(d.hidden_BTE) @ np.asarray(d.unembed_VE).T)
      for d in (student, teacher)
    ]
    q, p = logits
    a, b = (q, p) if sign else (p, q)
    expected = (np.exp(a) * (a - b)).sum(-1)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    total, _, _ = module.loss(student, teacher, jnp.asarray(weights))
    np.testing.assert_allclose(total, (weights * expected).sum(), rtol=1e-10)


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


@pytest.mark.parametrize("module", [forward_kl, reverse_kl])
def test_a_student_that_is_its_teacher_loses_nothing(module):
  same = dense(0)
  total, _, _ = module.loss(same, same, jnp.ones((2, 5)))
  np.testing.assert_allclose(total, 0, atol=1e-5)


@pytest.mark.parametrize("module", [forward_kl, reverse_kl])
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
