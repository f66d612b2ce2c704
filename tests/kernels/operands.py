"""What the tests of attention share: operands, a call's results, segments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from kernels import Blocks

NAMES = ("o", "lse", "dq", "dk", "dv")
# Small enough that a short sequence has several tiles.
BLOCKS = {"xla": Blocks(24, 16, 16, 24), "tpu": Blocks(128, 128, 128, 128)}


def draw(B=2, T=37, S=37, K=2, G=2, H=16, size=1.0, seed=0):
  """(q, k, v, do, dlse) in fp64, normal and `size` times as large."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape)
  q, k, v = normal(B, T, K, G, H), normal(B, S, K, H), normal(B, S, K, H)
  return size * q, size * k, v, normal(B, T, K, G, H), normal(B, T, K, G)


def everything(f, arrays, dtype, clean=True):
  """{name: fp64 array} of the outputs and gradients of f(q, k, v).

  `clean` sends no cotangent to an lse of -inf, which has no slope.
  """

  @jax.jit
  def run(q, k, v, do, dlse):
    (o, lse), pull = jax.vjp(f, q, k, v)
    if clean:
      dlse = jnp.where(jnp.isneginf(lse), 0, dlse)
    return o, lse, *pull((do.astype(o.dtype), dlse.astype(lse.dtype)))

  values = run(*(jnp.asarray(x, dtype) for x in arrays))
  wide = (np.asarray(x, np.float64) for x in values)
  return dict(zip(NAMES, wide, strict=True))


def attend(impl, **kw):
  """flash_attention with its lse; Pallas kernels run in the interpreter."""
  f = functools.partial(
    kernels.flash_attention,
    return_lse=True,
    impl=impl,
    blocks=BLOCKS.get(impl),
    interpret=impl == "tpu",
    **kw,
  )
  return jax.jit(f)


def packed(T, ends, B=2):
  """Segments 1, 2, ... that end where told, then padding; int32 [B, T]."""
  row = np.searchsorted(ends, np.arange(T), side="right") + 1
  row[np.arange(T) >= ends[-1]] = 0
  return jnp.asarray(np.broadcast_to(row, (B, T)), jnp.int32)


def single(arrays):
  return [jnp.asarray(x, jnp.float32) for x in arrays]
