"""The strictness that every other test relies on is really there."""

import jax
import jax.numpy as jnp
import pytest


def test_eight_devices():
  assert jax.device_count() == 8


def test_rank_promotion_raises():
  with pytest.raises(ValueError, match="rank"):
    jnp.ones((2, 3)) + jnp.ones(3)


def test_key_reuse_raises():
  key = jax.random.key(0)
  jax.random.bits(key)
  with pytest.raises(jax.errors.KeyReuseError):
    jax.random.bits(key)


def stream():
  key_bits, key_normal = jax.random.split(
    jax.random.fold_in(jax.random.key(0), 7)
  )
  return {
    "bits": jax.random.bits(key_bits, (4,)),
    "normal": jax.random.normal(key_normal, (4,)),
  }


def test_random_stream(golden):
  """Seeds mean the same numbers as when the results were made."""
  golden("random_stream", stream())


@pytest.mark.parametrize("name", ["bits", "normal"])
def test_golden_notices(name, golden, request):
  if request.config.getoption("--golden"):
    pytest.skip("would record a wrong number")
  value = stream()
  wrong = value | {name: value[name] + 1}
  with pytest.raises(AssertionError, match="make golden"):
    golden("random_stream", wrong)
  with pytest.raises(AssertionError, match="make golden"):
    golden("random_stream", {"bits": value["bits"]})
  with pytest.raises(pytest.fail.Exception, match="make golden"):
    golden("never_recorded", 1.0)
