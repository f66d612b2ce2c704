"""Rotary position embeddings in the half-split layout of the HF checkpoints."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from research.models.config import Rope


def _llama3(freq_h: np.ndarray, rope: Rope) -> np.ndarray:
  turns_h = rope.original * freq_h / (2 * math.pi)
  low, high = rope.low_frequency, rope.high_frequency
  smooth_h = np.clip((turns_h - low) / (high - low), 0, 1)
  return (1 - smooth_h) * freq_h / rope.factor + smooth_h * freq_h


def _yarn(freq_h: np.ndarray, rope: Rope) -> np.ndarray:
  half = freq_h.size

  def dim(turns):  # the (fractional) index that turns so often in the context
    wavelength = rope.original / (turns * 2 * math.pi)
    return half * math.log(wavelength) / math.log(rope.base)

  low = max(math.floor(dim(rope.beta_fast)), 0)
  high = min(math.ceil(dim(rope.beta_slow)), 2 * half - 1)
  ramp_h = np.clip((np.arange(half) - low) / max(high - low, 1e-3), 0, 1)
  return ramp_h * freq_h / rope.factor + (1 - ramp_h) * freq_h


def frequencies(rope: Rope, head_dim: int) -> np.ndarray:
  """Returns the angular frequency of each half-head pair, in radians a token.

  Raises:
    ValueError: the scaling is not one of Rope's.
  """
  freq_h = rope.base ** -(np.arange(0, head_dim, 2) / head_dim)
  match rope.scaling:
    case "none":
      return freq_h
    case "linear":
      return freq_h / rope.factor
    case "llama3":
      return _llama3(freq_h, rope)
    case "yarn":
      return _yarn(freq_h, rope)
  raise ValueError(f"unknown rope scaling {rope.scaling!r}")


def magnitude(rope: Rope) -> float:
  """Returns what YaRN multiplies queries and keys by; 1 for the others."""
  if rope.scaling != "yarn" or rope.factor <= 1:
    return 1.0
  return 0.1 * math.log(rope.factor) + 1.0


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotates x[..., H] by cos and sin[..., h], in fp32 or wider."""
  wide = jnp.promote_types(jnp.float32, x.dtype)
  a, b = jnp.split(x.astype(wide), 2, axis=-1)
  cos, sin = cos.astype(wide), sin.astype(wide)
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return turned.astype(x.dtype)
