"""Every loss of the folder: its contract, then those on written tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.losses import sampled_reverse_kl, supervised
from research.types import Dense, Sampled
from tests.research.losses.cases import dense
from tests.research.losses.documents import (
  MODULES,
  learned,
  packed,
  told,
  unembeddings,
)


def heard(module):
  """hidden_BTE, its weights, and the loss that hears nothing else anew."""
  rows, unembed, theirs = jax.tree.map(
    jnp.asarray, (packed([[0], [1]], 9), *unembeddings())
  )

  def loss(hidden, weights=rows["weights"], **args):
    own = learned(rows, unembed) | {"hidden": hidden}
    return told(module, own, rows | {"weights": weights}, theirs, **args)

  return rows["hidden"], rows["weights"], loss


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_contract(module):
  """(sum, denominator, metrics), blind to what weighs nothing, any blocks."""
  hidden, weights, loss = heard(module)
  total, denominator, metrics = loss(hidden)
  assert total.shape == denominator.shape == ()
  assert all(len(pair) == 2 for pair in metrics.values())
  np.testing.assert_allclose(total, loss(hidden, block=2)[0], rtol=1e-5)
  loud = jnp.where(weights[..., None] > 0, hidden, 9.0)
  np.testing.assert_array_equal(total, loss(loud)[0])
  grad = jax.grad(lambda h: loss(h)[0])(hidden)
  assert not np.any(grad[weights == 0])
  assert np.all(np.abs(grad[weights > 0]).max(-1) > 0)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_no_weight_is_zero_loss_and_finite_gradient(module):
  hidden, weights, loss = heard(module)
  total = lambda h: loss(h, 0 * weights)[0]
  value, grad = jax.value_and_grad(total)(hidden)
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


def test_sampled_reverse_kl_wants_the_teachers_numbers():
  signal = Sampled(jnp.zeros((2, 5), jnp.int32))
  with pytest.raises(ValueError, match="log-probability"):
    sampled_reverse_kl.loss(dense(0), signal, jnp.ones((2, 5)))
