"""LoRA: adapters apart from their base, joined to it, or merged into it.

The layer adds the adapters' product itself (see `product.Adapter`): merging
inside of a loss would make gradients as large as the matrices. Several adapters
join one base, whose arrays are shared and not copied.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from research.models import quantize
from research.models.config import ADAPTER, MATRICES, TARGETS, Lora, Model


def split(params: Any) -> tuple[Any, Any]:
  """Returns (base, adapters) of a tree of parameters, boxed or not."""
  base, adapters = {}, {}
  for name, value in params.items():
    if name.endswith(ADAPTER):
      adapters[name] = value
    elif isinstance(value, dict):
      base[name], inner = split(value)
      adapters |= {name: inner} if inner else {}
    else:
      base[name] = value
  return base, adapters


def join(base: Any, adapters: Any) -> Any:
  """Returns the parameters that `split` gives these two parts of."""
  inner = lambda name, x: x if name.endswith(ADAPTER) else join(base[name], x)
  return base | {name: inner(name, x) for name, x in adapters.items()}


def trained(config: Model, params: Any) -> Any:
  """Returns what an optimizer moves: adapters, or all where there are none."""
  return params if config.lora is None else split(params)[1]


def over(objective: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the objective of adapters alone.

  Its frozen part is (base, the given objective's own frozen part).
  """

  def adapted(adapters, frozen, inputs):
    base, rest = frozen
    return objective(join(base, adapters), rest, inputs)

  return adapted


def merge(config: Model, params: Any) -> tuple[Model, Any]:
  """Returns (config, params) of the same function without adapters.

  Matrices are summed in fp32 or wider and keep their dtype; a quantised base
  becomes the numbers that it means.
  """
  if config.lora is None:
    return config, params
  base, adapters = split(params)
  merged = _merged(config.lora, quantize.dequantize(base), adapters)
  return dataclasses.replace(config, lora=None), merged


def _merged(lora: Lora, base: Any, adapters: Any) -> Any:
  found = dict(base)
  for name, value in adapters.items():
    if not name.endswith(ADAPTER):
      found[name] = _merged(lora, base[name], value)
      continue
    matrix = TARGETS[name.removesuffix(ADAPTER)]
    found[matrix] = _sum(lora, matrix, base[matrix], value)
  return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sum(lora: Lora, matrix: str, weight: jax.Array, adapter: Any) -> jax.Array:
  """Returns W + scale A B of all layers, in W's dtype."""
  letters, i = matrix.split("_")[1], MATRICES[matrix]
  o = letters.removeprefix(i)
  a, b = adapter[f"a_{i}R"], adapter[f"b_R{o}"]
  wide = jnp.promote_types(jnp.float32, weight.dtype)
  change = jnp.einsum(
    f"N{i}R,NR{o}->N{letters}",
    a.astype(wide),
    b.astype(wide),
    precision=jax.lax.Precision.HIGHEST,
  )
  return (weight.astype(wide) + lora.scale * change).astype(weight.dtype)
