"""Frozen matrices in 8 or 4 bits, through qwix: a teacher's, a LoRA's base.

Only weights are quantised. With 8 bits each output channel has its scale, and
the product with the integers is scaled; with 4 bits TILE inputs share a scale,
and a layer's matrix is widened where it is used, in the backward pass anew.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import linen as nn

from research.models.config import ADAPTER, MATRICES

TILE = 64  # inputs under one scale at 4 bits, as in QLoRA (2305.14314)
_TYPES = {8: jnp.int8, 4: jnp.int4}


def is_quantised(x: Any) -> bool:
  """Says whether a parameter is held quantised."""
  return isinstance(x, qwix.QArray)


def quantize(params: Any, bits: int) -> Any:
  """Returns the parameters with every matrix of the layers as a `QArray`.

  Embeddings, norms and biases stay as they are; scales are fp32 or wider.

  Raises:
    ValueError: bits are neither 4 nor 8, the parameters hold adapters, which
      are trained, or they are quantised already.
  """
  if bits not in _TYPES:
    raise ValueError(f"bits is {bits}: matrices are held in 4 or in 8 bits")

  def one(path, x):
    if any(str(part.key).endswith(ADAPTER) for part in path):
      raise ValueError(
        f"{jax.tree_util.keystr(path)} is a LoRA's: quantise the base alone, "
        "which lora.split gives"
      )
    name = str(path[-1].key)
    if is_quantised(x):
      raise ValueError(f"{name} is quantised already")
    return _stacked(x, name, bits) if name in MATRICES else x

  return jax.tree_util.tree_map_with_path(one, params, is_leaf=is_quantised)


def _stacked(x: jax.Array, name: str, bits: int) -> qwix.QArray:
  """Quantises the matrices of all layers, stacked on N."""
  shape, inputs = x.shape[1:], len(MATRICES[name])
  outputs = list(range(inputs, len(shape)))
  tiled, own = {}, outputs
  if bits == 4:
    tiled = {inputs - 1: math.gcd(shape[inputs - 1], TILE)}
    own = [*range(inputs - 1), *outputs]
  one = functools.partial(
    qwix.quantize, qtype=_TYPES[bits], channelwise_axes=own, tiled_axes=tiled
  )
  return jax.vmap(one)(x.astype(jnp.promote_types(jnp.float32, x.dtype)))


def dequantize(params: Any) -> Any:
  """Returns the parameters with what is quantised as the numbers it means."""
  widen = lambda x: qwix.dequantize(x) if is_quantised(x) else x
  return jax.tree.map(widen, params, is_leaf=is_quantised)


def abstract(boxed: Any, bits: int) -> Any:
  """Returns the boxed shapes and letters of what `quantize` makes of `boxed`.

  `sharding.of_parameters` takes it; an axis that a scale has not is a 1.
  """
  shapes = jax.eval_shape(
    functools.partial(quantize, bits=bits), nn.unbox(boxed)
  )

  def box(whole, x):
    def one(part):
      sizes = zip(whole.names, part.shape, whole.value.shape, strict=True)
      letters = tuple("1" if n == 1 < size else x for x, n, size in sizes)
      return nn.LogicallyPartitioned(part, letters)

    return jax.tree.map(one, x)

  is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)
  return jax.tree.map(box, boxed, shapes, is_leaf=is_box)


def einsum(equation: str, x: jax.Array, weight: Any) -> jax.Array:
  """Returns `jnp.einsum` in x's dtype; `weight` may be quantised."""
  if is_quantised(weight):
    return _widened(equation, x, weight)
  return jnp.einsum(equation, x, weight)


# Or else each layer's widened matrix would be kept for the backward pass.
@functools.partial(jax.checkpoint, static_argnums=0)
def _widened(equation: str, x: jax.Array, weight: qwix.QArray) -> jax.Array:
  if weight.qtype == jnp.int4:
    weight = weight.astype(x.dtype)  # a matrix of this dtype, not of fp32
  return qwix.einsum(equation, x, weight).astype(x.dtype)
