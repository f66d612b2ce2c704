"""Parameters by name, and the products of a layer with its matrices.

`weight(self, "q_DKGH", "D")` gives a parameter's name, shape, partition and
fan-in in one line; the letters are those of research.sharding.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from research.models import quantize
from research.models.config import ADAPTER, MATRICES, Model


def weight(module: Any, name: str, fan_in: str, init: Any = None) -> Any:
  """Declares the parameter `name`, whose suffix gives shape and partition."""
  letters = name.rsplit("_", 1)[1]
  sizes = module.config.sizes
  if init is None:
    variance = 1 / np.prod([sizes[x] for x in fan_in])
    init = nn.initializers.truncated_normal(np.sqrt(variance))
  boxed = nn.with_logical_partitioning(init, tuple(letters))
  value = module.param(name, boxed, [sizes[x] for x in letters], jnp.float32)
  if quantize.is_quantised(value):
    return value
  return value.astype(module.config.dtype)


class Adapter(nn.Module):
  """The low-rank product x A B; A begins as PEFT's, B as zero."""

  config: Model
  inputs: str
  outputs: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the product, of the shape of x's with the matrix itself."""
    i, o = self.inputs, self.outputs
    draw = nn.initializers.variance_scaling(
      1 / 3, "fan_in", "uniform", in_axis=tuple(range(len(i)))
    )
    a = weight(self, f"a_{i}R", i, draw)
    b = weight(self, f"b_R{o}", "R", nn.initializers.zeros)
    low_BTR = jnp.einsum(f"BT{i},{i}R->BTR", x, a)
    return jnp.einsum(f"BTR,R{o}->BT{o}", low_BTR, b)


def _flat(x: jax.Array, matrix: jax.Array, inputs: int) -> jax.Array:
  """Returns x[B, T, ...] by a matrix of `inputs` such axes, each made one.

  XLA for CPUs transposes the operands of any other product before it multiplies
  them, for a quarter of a step's time. Axes that are split over devices cannot
  be joined without moving them.
  """
  sizes = matrix.shape[inputs:]
  y = x.reshape(x.shape[0] * x.shape[1], -1) @ matrix.reshape(
    -1, math.prod(sizes)
  )
  return y.reshape(*x.shape[:2], *sizes)


def product(module: Any, name: str, x: jax.Array) -> jax.Array:
  """Contracts x[B, T, ...] with the matrix `name`, and what adapts it."""
  inputs = MATRICES[name]
  stem, letters = name.split("_")
  outputs = letters.removeprefix(inputs)
  matrix = weight(module, name, inputs)
  alone = module.mesh is None or module.mesh.size == 1
  if alone and not quantize.is_quantised(matrix):
    y = _flat(x, matrix, len(inputs))
  else:
    y = quantize.einsum(f"BT{inputs},{letters}->BT{outputs}", x, matrix)
  lora = module.config.lora
  if lora is None or stem not in lora.targets:
    return y
  adapter = Adapter(module.config, inputs, outputs, name=stem + ADAPTER)
  return y + lora.scale * adapter(x)
