"""map_tokens equals the dense function, in value, gradient and less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels


def inputs(B=3, T=10, D=8, V=33):
  keys = jax.random.split(jax.random.key(0), 3)
  hidden_BTD = jax.random.normal(keys[0], (B, T, D))
  unembed_VD = jax.random.normal(keys[1], (V, D))
  targets_BT = jax.random.randint(keys[2], (B, T), 0, V)
  return hidden_BTD, unembed_VD, targets_BT


def dense(hidden_BTD, unembed_VD, targets_BT, temperature=1.0):
  logits = jnp.einsum("BTD,VD->BTV", hidden_BTD, unembed_VD) / temperature
  logp = jax.nn.log_softmax(logits)
  picked = jnp.take_along_axis(logp, targets_BT[..., None], -1)[..., 0]
  return picked, -(jnp.exp(logp) * logp).sum(-1)


@pytest.mark.parametrize("block", [1, 3, 7, 12, 30, 999])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_blocks_equal_dense(block, temperature):
  hidden, unembed, targets = inputs()

  def total(f, hidden, unembed):
    logp, entropy = f(hidden, unembed, targets)
    return (logp * 2 + entropy).sum()

  blocked = lambda *x: kernels.token_logprobs(
    *x, temperature=temperature, block=block
  )
  whole = lambda *x: dense(*x, temperature=temperature)
  for a, b in zip(
    jax.value_and_grad(total, (1, 2))(blocked, hidden, unembed)[1],
    jax.value_and_grad(total, (1, 2))(whole, hidden, unembed)[1],
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  for a, b in zip(
    blocked(hidden, unembed, targets),
    whole(hidden, unembed, targets),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_known_log_probabilities():
  hidden = jnp.ones((1, 1, 1))
  unembed = jnp.array([[0.0], [np.log(3)]])
  one = jnp.ones((1, 1), jnp.int32)
  at = lambda t: kernels.token_logprobs(hidden, unembed, one, temperature=t)[0]
  np.testing.assert_allclose(at(1.0), -0.287682, atol=1e-6)
  np.testing.assert_allclose(at(0.5), -0.105361, atol=1e-6)


def test_softcap_and_minus_infinity():
  hidden = jnp.ones((1, 1, 1))
  unembed = jnp.array([[0.0], [-jnp.inf]])
  zero = jnp.zeros((1, 1), jnp.int32)
  logp, entropy = kernels.token_logprobs(hidden, unembed, zero)
  assert (float(logp[0, 0]), float(entropy[0, 0])) == (0.0, 0.0)
  capped, _ = kernels.token_logprobs(
    hidden, jnp.array([[0.0], [1e4]]), zero, softcap=2.0
  )
  np.testing.assert_allclose(capped, -np.log1p(np.exp(2.0)), rtol=1e-6)


def test_memory_is_that_of_a_block():
  """T=512, D=32, V=8192: dense logits alone are 16.8 MB."""
  hidden = jax.ShapeDtypeStruct((1, 512, 32), jnp.float32)
  unembed = jax.ShapeDtypeStruct((8192, 32), jnp.float32)
  targets = jax.ShapeDtypeStruct((1, 512), jnp.int32)

  def temporaries(f):
    grad = jax.grad(lambda h, u, t: f(h, u, t)[0].sum(), (0, 1))
    compiled = jax.jit(grad).lower(hidden, unembed, targets).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  blocked = lambda *x: kernels.token_logprobs(*x, block=32)
  assert temporaries(blocked) < 512 * 8192 * 4 / 2
  assert temporaries(dense) > 512 * 8192 * 4
