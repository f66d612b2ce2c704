"""What callers may pass: implementations, bounds in one form, clear errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kernels.mask import Blocks

# What a compiler multiplies; the others take any floating dtype.
TAKES = {"tpu": ("bfloat16", "float32"), "hopper": ("bfloat16", "float16")}
# Offsets are below, and windows cut to it, so that sums of them fit int32.
FAR = 1 << 29


def choose(impl: str | None, known: tuple[str, ...], dtype: Any) -> str:
  """Returns `impl`; where it is None, the platform's own that takes `dtype`.

  Raises:
    ValueError: `impl` is none of `known`, or does not take `dtype`.
  """
  takes = lambda name: name not in TAKES or str(dtype) in TAKES[name]
  if impl is None:
    own = _platform()
    return own if own in known and takes(own) else "xla"
  if impl not in known:
    raise ValueError(f"impl is {impl!r}; it is one of {', '.join(known)}")
  if not takes(impl):
    raise ValueError(
      f"q is {dtype}; impl={impl!r} takes {' and '.join(TAKES[impl])}, "
      "impl='xla' any floating dtype"
    )
  return impl


def device() -> Any:
  """Returns the device traced for, which may be one that is not at hand.

  Inside of shard_map it is the mesh's, elsewhere the default one.
  """
  own = jax.devices()[0]
  meant = jax.sharding.get_abstract_mesh().abstract_device
  other = meant is not None and meant.platform != own.platform
  return meant if other else own


def _platform() -> str:
  hopper = getattr(device(), "compute_capability", None) == "9.0"
  return "hopper" if hopper else device().platform


def shaped(name: str, x: Any, wanted: tuple[int, ...], like: str, y: Any):
  """Raises ValueError unless x has the shape that y, called `like`, implies."""
  if jnp.shape(x) != wanted:
    raise ValueError(
      f"{name} is {jnp.shape(x)}; beside {like} {jnp.shape(y)} it must be "
      f"{wanted}"
    )


def alike(name: str, x: Any, **others: Any) -> None:
  """Raises ValueError unless x is floating, and the others of its dtype."""
  floating(name, x)
  for other, y in others.items():
    if y.dtype != x.dtype:
      raise ValueError(
        f"{other} is {y.dtype} and {name} {x.dtype}; they must agree"
      )


def floating(name: str, x: Any) -> None:
  """Raises ValueError unless x is floating."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{name} is {x.dtype}; a floating dtype is wanted")


def integers(name: str, x: Any) -> None:
  """Raises ValueError unless x holds integers."""
  if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
    raise ValueError(f"{name} is {jnp.result_type(x)}; integers are wanted")


def softcap_and_blocks(softcap: float | None, blocks: Blocks | None) -> None:
  """Raises ValueError naming a bound that makes no sense."""
  if softcap is not None and softcap <= 0:
    raise ValueError(f"softcap is {softcap}; it must be above 0, or None")
  if blocks is not None and min(blocks) < 1:
    raise ValueError(f"blocks is {blocks}; a tile has at least one token")


def window_of(window: Any, B: int) -> tuple[int | None, Any]:
  """Returns (the plain int, int32 [B]) of a window, of which one is None."""
  if window is None:
    return None, None
  if isinstance(window, Tracer):
    return None, jnp.minimum(_a_row("window", window, B), FAR)
  held = np.asarray(window)
  integers("window", held)
  if held.size and held.min() < 1:
    raise ValueError(f"window is {window}; it must be at least 1")
  held = np.minimum(held, FAR).astype(np.int32)
  if isinstance(window, int | np.integer):
    return int(held), None
  return None, _a_row("window", held, B)


def offset_of(offset: Any, B: int) -> tuple[int, Any]:
  """Returns (the plain int, None) of an offset, or (0, int32 [B])."""
  if not isinstance(offset, Tracer):
    held = np.asarray(offset)
    if held.size and np.abs(held).max() >= FAR:
      raise ValueError(f"q_offset is {offset}; it must be below {FAR}")
  if isinstance(offset, int | np.integer):
    return int(offset), None
  return 0, _a_row("q_offset", offset, B)


def _a_row(name: str, value: Any, B: int) -> jax.Array:
  """A scalar or [B] as int32 [B]."""
  value = jnp.asarray(value)
  integers(name, value)
  if value.shape not in ((), (B,)):
    raise ValueError(
      f"{name} has shape {value.shape}; a scalar or ({B},) is wanted"
    )
  return jnp.broadcast_to(value, (B,)).astype(jnp.int32)
