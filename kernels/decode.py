"""Attention of one new token a row over that row's cache of keys and values.

Reading the cache bounds the time: B * min(length, window) * K * 2H * itemsize
bytes against 4 * B * length * K * G * H operations, a few operations a byte. An
implementation is good when it reads what a row may see, once, and nothing else.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kernels import arguments, layout
from kernels.softmax import capped, finite, log_total, some

BLOCK = 512
IMPLEMENTATIONS = ("reference", "xla", "tpu", "hopper")


def decode_attention(
  q_BKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  lengths_B: Any,
  *,
  window: Any = None,
  softcap: float | None = None,
  scale: float | None = None,
  splits: int | None = None,
  return_lse: bool = False,
  impl: str | None = None,
  interpret: Any = False,
) -> Any:
  """Returns o_BKGH, or (o_BKGH, lse_BKG): softmax(q k^T) v over a row's cache.

  Row b holds `lengths_B[b]` tokens, the last of which is the query's own, so
  the query stands at position lengths_B[b] - 1. It sees all of them, or the
  last `window` (an int, or int32 [] or [B], traced or not). A row of length 0
  gets o = 0 and lse = -inf. What the cache holds beyond a length is never
  looked at, NaN included; in what is seen, NaN and infinity stay in their own
  head, but on TPU reach all heads of the row. Scores are softcap * tanh(scale *
  q k^T / softcap); products accumulate in fp32, and fp32 inputs are multiplied
  in full precision.

  `splits` cuts the keys of each row into so many parts that may run at the same
  time (FlashDecoding); None lets the device decide, and `reference` and `xla`
  have no use for it. `interpret` is for `impl="tpu"` and `impl="hopper"`.

  Raises:
    ValueError: shapes or dtypes do not fit, a length lies outside [0, S], or
      `impl` is not one of reference, xla, tpu and hopper.
  """
  _check(q_BKGH, k_BSKH, v_BSKH, lengths_B, splits)
  arguments.softcap_and_blocks(softcap, None)
  H, S = q_BKGH.shape[-1], k_BSKH.shape[1]
  nothing = 0 in (*q_BKGH.shape, S)
  impl = _choose("reference" if nothing else impl, q_BKGH)
  static, window_B = arguments.window_of(window, q_BKGH.shape[0])
  window = static if window_B is None else window_B
  end_B = jnp.clip(jnp.asarray(lengths_B, jnp.int32), 0, S)
  first_B = jnp.zeros_like(end_B)
  if window is not None:
    first_B = jnp.maximum(end_B - window, 0)
  args = (q_BKGH, k_BSKH, v_BSKH, jnp.minimum(first_B, end_B), end_B)
  factor = H**-0.5 if scale is None else float(scale)
  if impl in ("tpu", "hopper"):  # a laptop has no use for their compilers
    module = importlib.import_module(f"kernels.decode_{impl}")
    o_BKGH, lse_BKG = module.decode(*args, factor, softcap, splits, interpret)
  else:
    decode = reference if impl == "reference" else xla
    o_BKGH, lse_BKG = decode(*args, factor, softcap)
  return (o_BKGH, lse_BKG) if return_lse else o_BKGH


def _choose(impl: str | None, q_BKGH: jax.Array) -> str:
  """Returns `impl`, or the platform's own where that takes such queries."""
  name = arguments.choose(impl, IMPLEMENTATIONS, q_BKGH.dtype)
  if impl is None and name == "hopper":
    module = importlib.import_module("kernels.decode_hopper")
    return name if module.takes(q_BKGH) else "xla"
  return name


def reference(
  q_BKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  first_B: jax.Array,
  end_B: jax.Array,
  scale: float,
  softcap: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BKGH, lse_BKG) over the keys [first, end) of each row.

  The meaning, readable first; fp64 inputs are computed in fp64.
  """
  seen_BS = _seen(jnp.arange(k_BSKH.shape[1]), first_B, end_B)
  v_BSKH = jnp.where(seen_BS[:, :, None, None], v_BSKH, 0)
  s_BKGS = _product("BKGH,BSKH->BKGS", q_BKGH, k_BSKH)
  s_BKGS = _scores(s_BKGS, seen_BS, scale, softcap)
  lse_BKG = jax.nn.logsumexp(s_BKGS, -1)
  p_BKGS = jnp.exp(s_BKGS - finite(lse_BKG)[..., None]).astype(v_BSKH.dtype)
  o_BKGH = _product("BKGS,BSKH->BKGH", p_BKGS, v_BSKH)
  return o_BKGH.astype(q_BKGH.dtype), lse_BKG


def _seen(at_S: jax.Array, first_B: jax.Array, end_B: jax.Array) -> jax.Array:
  at_1S, first_B1, end_B1 = at_S[None, :], first_B[:, None], end_B[:, None]
  return (at_1S >= first_B1) & (at_1S < end_B1)


def _product(axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """An einsum accumulated in fp32 or wider."""
  wide = jnp.promote_types(jnp.float32, a.dtype)
  exact = jax.lax.Precision.HIGHEST
  return jnp.einsum(axes, a, b, preferred_element_type=wide, precision=exact)


def _scores(s_BKGS, seen_BS, scale: float, softcap: float | None) -> jax.Array:
  s_BKGS = capped(s_BKGS * scale, softcap)
  return jnp.where(seen_BS[:, None, None, :], s_BKGS, -jnp.inf)


def xla(
  q_BKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  first_B: jax.Array,
  end_B: jax.Array,
  scale: float,
  softcap: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BKGH, lse_BKG), reading the blocks that some row may see.

  A loop over blocks of the cache from the first key that any row sees to the
  last: an online softmax, whose work array is at most one block of the cache.
  """
  S = k_BSKH.shape[1]
  block = min(BLOCK, S)
  wide = jnp.promote_types(jnp.float32, q_BKGH.dtype)

  def body(i, carry):
    m_BKG, l_BKG, o_BKGH = carry
    start = jnp.minimum(i * block, S - block)  # the last block may overlap
    cut = lambda x: lambda: jax.lax.dynamic_slice_in_dim(x, start, block, 1)
    at_S = start + jnp.arange(block)
    seen_BS = _seen(at_S, jnp.maximum(first_B, i * block), end_B)
    s_BKGS = _keys(q_BKGH, cut(k_BSKH), seen_BS)
    s_BKGS = _scores(s_BKGS, seen_BS, scale, softcap)
    new_BKG = jnp.maximum(m_BKG, s_BKGS.max(-1))
    p_BKGS = jnp.exp(s_BKGS - finite(new_BKG)[..., None])
    fade_BKG = jnp.exp(m_BKG - finite(new_BKG))
    o_BKGH = o_BKGH * fade_BKG[..., None]
    o_BKGH += _values(p_BKGS.astype(v_BSKH.dtype), cut(v_BSKH), seen_BS)
    return new_BKG, l_BKG * fade_BKG + p_BKGS.sum(-1), o_BKGH

  zero_BKG = jnp.zeros(q_BKGH.shape[:-1], wide)
  carry = zero_BKG - jnp.inf, zero_BKG, jnp.zeros(q_BKGH.shape, wide)
  low = jnp.where(first_B < end_B, first_B, S).min() // block
  high = -(-end_B.max() // block)
  m_BKG, l_BKG, o_BKGH = jax.lax.fori_loop(low, high, body, carry)
  o_BKGH = (o_BKGH / some(l_BKG)[..., None]).astype(q_BKGH.dtype)
  return o_BKGH, log_total(m_BKG, l_BKG)


def _keys(q_BKGH, keys, seen_BS) -> jax.Array:
  """Returns q k^T, [B, K, G, S], of the block that keys() cuts.

  Cut in each branch anew, for what goes into a branch is first copied.
  """
  apart = lambda: _product("BKGH,BSKH->BKGS", q_BKGH, keys())
  if _apart(q_BKGH):
    return apart()
  s = _product("Brh,Bsh->Brs", layout.spread(q_BKGH), _beside(keys()))
  s_BKGS = s.reshape(*q_BKGH.shape[:-1], -1)
  # One head's infinity is NaN, 0 * inf, in the others' sums: then, and only
  # then, heads are multiplied apart.
  known = jnp.isfinite(s_BKGS) | ~seen_BS[:, None, None]
  return jax.lax.cond(known.all(), lambda: s_BKGS, apart)


def _values(p_BKGS, values, seen_BS) -> jax.Array:
  """Returns p v, [B, K, G, H], where p is 0 for keys that are not seen."""
  B, K, G, S = p_BKGS.shape

  def product(v_BSKH):
    if _apart(p_BKGS):
      return _product("BKGS,BSKH->BKGH", p_BKGS, v_BSKH)
    p = p_BKGS.reshape(B, K * G, S)
    return layout.own(_product("Brs,Bsh->Brh", p, _beside(v_BSKH)), K)

  # 0 * NaN is NaN; to clear what is not seen is to write the block once more,
  # so it is done when there is something to clear.
  clear = lambda: product(jnp.where(seen_BS[:, :, None, None], values(), 0))
  o_BKGH = product(values())
  return jax.lax.cond(jnp.isfinite(o_BKGH).all(), lambda: o_BKGH, clear)


def _apart(x: jax.Array) -> bool:
  """If heads are multiplied one by one: a CPU has to emulate 16 bits."""
  return x.dtype.itemsize < 4


def _beside(x_BSKH: jax.Array) -> jax.Array:
  """All heads' features of a key side by side."""
  return x_BSKH.reshape(*x_BSKH.shape[:2], -1)


def _check(q, k, v, lengths, splits) -> None:
  """Raises ValueError naming what does not fit, with both shapes."""
  if q.ndim != 4 or k.ndim != 4:
    raise ValueError(
      f"q_BKGH and k_BSKH have 4 axes; they are {q.shape} and {k.shape}"
    )
  B, K, _, H = q.shape
  arguments.shaped("k_BSKH", k, (B, k.shape[1], K, H), "q_BKGH", q)
  arguments.shaped("v_BSKH", v, k.shape, "k_BSKH", k)
  arguments.alike("q_BKGH", q, k_BSKH=k, v_BSKH=v)
  arguments.shaped("lengths_B", lengths, (B,), "q_BKGH", q)
  arguments.integers("lengths_B", lengths)
  if splits is not None and splits < 1:
    raise ValueError(f"splits is {splits}; it is at least 1")
  _check_lengths(lengths, k.shape)


def _check_lengths(lengths: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError where a length that can be read leaves [0, S]."""
  if isinstance(lengths, Tracer) or shape[0] == 0:
    return
  low, high = int(np.min(lengths)), int(np.max(lengths))
  if low < 0 or high > shape[1]:
    raise ValueError(
      f"lengths_B lies in [{low}, {high}]; k_BSKH is {shape} and holds "
      f"{shape[1]} tokens a row"
    )
