"""Attention in plain jnp, a tile of queries and keys at a time (impl="xla").

The schedule of FlashAttention (2205.14135): no [T, S] array is ever made, in
neither pass, and tiles that lie wholly outside of a causal mask or a window are
not computed. Short loops are unrolled, so that XLA sees static slices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels import mask
from kernels.layout import pad
from kernels.mask import Blocks, Limits, Rule
from kernels.softmax import finite, log_total, some

UNROLL = 4
BLOCKS = Blocks(q=64, kv=64, q_backward=64, kv_backward=64)


class _Tiles(NamedTuple):
  """Head-major operands, padded to whole tiles, and how many there are."""

  q_BKGTH: jax.Array
  k_BKSH: jax.Array
  v_BKSH: jax.Array
  limits: Limits
  T: int
  S: int
  q: int
  kv: int


def _even(size: int, block: int) -> int:
  """The tile of at most `block` that cuts `size` with the least padding."""
  return -(-size // -(-size // block))


def _tiles(q_BTKGH, k_BSKH, v_BSKH, limits: Limits, q: int, kv: int) -> _Tiles:
  T, S = q_BTKGH.shape[1], k_BSKH.shape[1]
  q, kv = _even(T, q), _even(S, kv)
  keys = lambda x_BSKH: pad(x_BSKH.swapaxes(1, 2), 2, kv)
  q_BKGTH = pad(q_BTKGH.transpose(0, 2, 3, 1, 4), 3, q)
  if limits.q_segments_BT is not None and limits.kv_segments_BS is not None:
    limits = limits._replace(
      q_segments_BT=pad(limits.q_segments_BT, 1, q),
      kv_segments_BS=pad(limits.kv_segments_BS, 1, kv),
    )
  return _Tiles(q_BKGTH, keys(k_BSKH), keys(v_BSKH), limits, T, S, q, kv)


def _cut(x: jax.Array, i: Any, size: int, axis: int) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis)


def _put(x: jax.Array, part: jax.Array, i: Any, axis: int) -> jax.Array:
  at = i * part.shape[axis]
  return jax.lax.dynamic_update_slice_in_dim(x, part, at, axis)


def _loop(low: Any, high: Any, body: Callable[..., Any], carry: Any) -> Any:
  """A loop over [low, high): unrolled where it is short and static."""
  if isinstance(low, int) and isinstance(high, int) and high - low <= UNROLL:
    for i in range(low, high):
      carry = body(i, carry)
    return carry
  return jax.lax.fori_loop(low, high, body, carry)


def _live(rule: Rule, tiles: _Tiles, i: Any) -> tuple[Any, Any]:
  """Returns [low, high) of the key tiles that the queries of tile i may see."""
  window = mask.window_of(rule, tiles.limits)
  q_offset = mask.q_offset_of(rule, tiles.limits)
  first, last = i * tiles.q, (i + 1) * tiles.q - 1
  if isinstance(window, jax.Array):
    window = window.max()
  if not isinstance(q_offset, jax.Array):
    early = late = q_offset
  else:
    early, late = q_offset.min(), q_offset.max()
  S, causal = tiles.S, rule.causal
  low, _ = mask.kv_range(first, last, window, early, causal, S)
  _, high = mask.kv_range(first, last, window, late, causal, S)
  return low // tiles.kv, -(-high // tiles.kv)


def _seen(rule: Rule, tiles: _Tiles, i: Any, j: Any) -> jax.Array:
  """Returns the mask of a tile, [B or 1, 1, 1, t, s]."""
  column = lambda x: jnp.atleast_1d(jnp.asarray(x))[:, None, None, None, None]
  t = (i * tiles.q + jnp.arange(tiles.q))[None, None, None, :, None]
  s = (j * tiles.kv + jnp.arange(tiles.kv))[None, None, None, None, :]
  window = mask.window_of(rule, tiles.limits)
  window = None if window is None else column(window)
  at = t + column(mask.q_offset_of(rule, tiles.limits))
  seen = (t < tiles.T) & (s < tiles.S)
  near = mask.inside(at, s, rule.causal, window)
  if near is not None:
    seen = seen & near
  limits = tiles.limits
  if limits.q_segments_BT is not None and limits.kv_segments_BS is not None:
    mine = _cut(limits.q_segments_BT, i, tiles.q, 1)
    theirs = _cut(limits.kv_segments_BS, j, tiles.kv, 1)
    same = mine[:, :, None] == theirs[:, None, :]
    seen = seen & same[:, None, None]
  return seen


def _dot(terms: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """An einsum in fp32 or wider; fp32 operands are not rounded before it."""
  wide = jnp.promote_types(jnp.float32, a.dtype)
  exact = None if a.dtype.itemsize < 4 else jax.lax.Precision.HIGHEST
  return jnp.einsum(terms, a, b, preferred_element_type=wide, precision=exact)


def _scores(rule: Rule, q_BKGtH, k_BKsH) -> tuple[jax.Array, Any]:
  """Returns the scores of a tile, and tanh's slope (1 without a softcap)."""
  s_BKGts = rule.scale * _dot("BKGtH,BKsH->BKGts", q_BKGtH, k_BKsH)
  if rule.softcap is None:
    return s_BKGts, 1.0
  bent = jnp.tanh(s_BKGts / rule.softcap)
  return rule.softcap * bent, 1 - bent * bent


def forward(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  rule: Rule,
  limits: Limits,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BTKGH, lse_BTKG); products accumulate in fp32 or wider."""
  del interpret
  size = rule.blocks or BLOCKS
  tiles = _tiles(q_BTKGH, k_BSKH, v_BSKH, limits, size.q, size.kv)
  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  shape = tiles.q_BKGTH.shape

  def tile(i, carry):
    o_BKGTH, lse_BKGT = carry
    o_BKGtH, lse_BKGt = _row(rule, tiles, i, wide)
    o_BKGTH = _put(o_BKGTH, o_BKGtH.astype(q_BTKGH.dtype), i, 3)
    return o_BKGTH, _put(lse_BKGT, lse_BKGt, i, 3)

  carry = jnp.zeros(shape, q_BTKGH.dtype), jnp.zeros(shape[:-1], wide)
  o_BKGTH, lse_BKGT = _loop(0, shape[3] // tiles.q, tile, carry)
  o_BTKGH = o_BKGTH[..., : tiles.T, :].transpose(0, 3, 1, 2, 4)
  return o_BTKGH, lse_BKGT[..., : tiles.T].transpose(0, 3, 1, 2)


def _row(rule, tiles: _Tiles, i: Any, wide) -> tuple[jax.Array, jax.Array]:
  """One tile of queries against all that it sees, by an online softmax."""
  q_BKGtH = _cut(tiles.q_BKGTH, i, tiles.q, 3)

  def step(j, carry):
    o_BKGtH, high_BKGt, sum_BKGt = carry
    v_BKsH = _cut(tiles.v_BKSH, j, tiles.kv, 2)
    s_BKGts, _ = _scores(rule, q_BKGtH, _cut(tiles.k_BKSH, j, tiles.kv, 2))
    s_BKGts = jnp.where(_seen(rule, tiles, i, j), s_BKGts, -jnp.inf)
    new_BKGt = jnp.maximum(high_BKGt, s_BKGts.max(-1))
    safe_BKGt = finite(new_BKGt)
    p_BKGts = jnp.exp(s_BKGts - safe_BKGt[..., None])
    old_BKGt = jnp.exp(high_BKGt - safe_BKGt)
    p_BKGts, total_BKGt = p_BKGts.astype(v_BKsH.dtype), p_BKGts.sum(-1)
    pv_BKGtH = _dot("BKGts,BKsH->BKGtH", p_BKGts, v_BKsH)
    o_BKGtH = old_BKGt[..., None] * o_BKGtH + pv_BKGtH
    return o_BKGtH, new_BKGt, old_BKGt * sum_BKGt + total_BKGt

  start = (
    jnp.zeros(q_BKGtH.shape, wide),
    jnp.full(q_BKGtH.shape[:-1], -jnp.inf, wide),
    jnp.zeros(q_BKGtH.shape[:-1], wide),
  )
  low, high = _live(rule, tiles, i)
  o_BKGtH, high_BKGt, sum_BKGt = _loop(low, high, step, start)
  return o_BKGtH / some(sum_BKGt)[..., None], log_total(high_BKGt, sum_BKGt)


def backward(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  do_BTKGH: jax.Array,
  lse_BTKG: jax.Array,
  delta_BTKG: jax.Array,
  rule: Rule,
  limits: Limits,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (dq_BTKGH, dk_BSKH, dv_BSKH); see kernels.attention for `delta`."""
  del interpret
  size = rule.blocks or BLOCKS
  tiles = _tiles(
    q_BTKGH, k_BSKH, v_BSKH, limits, size.q_backward, size.kv_backward
  )
  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  do_BKGTH = pad(do_BTKGH.transpose(0, 2, 3, 1, 4), 3, tiles.q)
  # A row that sees nothing has lse = -inf: +inf makes its weights 0.
  lse_BTKG = jnp.where(jnp.isneginf(lse_BTKG), jnp.inf, lse_BTKG)
  row = lambda x_BTKG: pad(x_BTKG.transpose(0, 2, 3, 1), 3, tiles.q)
  side = do_BKGTH, row(lse_BTKG), row(delta_BTKG)

  def tile(i, carry):
    dq_BKGTH, *sums = carry
    dq_BKGtH, *sums = _row_gradients(rule, tiles, side, i, sums, wide)
    return _put(dq_BKGTH, dq_BKGtH.astype(dq_BKGTH.dtype), i, 3), *sums

  keys = lambda: jnp.zeros(tiles.k_BKSH.shape, wide)
  carry = jnp.zeros(tiles.q_BKGTH.shape, q_BTKGH.dtype), keys(), keys()
  count = tiles.q_BKGTH.shape[3] // tiles.q
  dq_BKGTH, dk_BKSH, dv_BKSH = _loop(0, count, tile, carry)
  whole = lambda x, like: x[:, :, : tiles.S].swapaxes(1, 2).astype(like.dtype)
  dq_BTKGH = dq_BKGTH[..., : tiles.T, :].transpose(0, 3, 1, 2, 4)
  return dq_BTKGH, whole(dk_BKSH, k_BSKH), whole(dv_BKSH, v_BSKH)


def _row_gradients(rule, tiles: _Tiles, side, i: Any, sums, wide) -> Any:
  """Returns (dq of one tile of queries, dk, dv with that tile's part added)."""
  q_BKGtH = _cut(tiles.q_BKGTH, i, tiles.q, 3)
  do_BKGtH, lse_BKGt, delta_BKGt = (_cut(x, i, tiles.q, 3) for x in side)

  def step(j, carry):
    dq_BKGtH, dk_BKSH, dv_BKSH = carry
    k_BKsH = _cut(tiles.k_BKSH, j, tiles.kv, 2)
    v_BKsH = _cut(tiles.v_BKSH, j, tiles.kv, 2)
    s_BKGts, slope = _scores(rule, q_BKGtH, k_BKsH)
    seen = _seen(rule, tiles, i, j)
    p_BKGts = jnp.where(seen, jnp.exp(s_BKGts - lse_BKGt[..., None]), 0)
    dp_BKGts = _dot("BKGtH,BKsH->BKGts", do_BKGtH, v_BKsH)
    ds_BKGts = rule.scale * p_BKGts * (dp_BKGts - delta_BKGt[..., None]) * slope
    p_BKGts, ds_BKGts = (x.astype(q_BKGtH.dtype) for x in (p_BKGts, ds_BKGts))
    dq_BKGtH += _dot("BKGts,BKsH->BKGtH", ds_BKGts, k_BKsH)
    dk_BKsH = _dot("BKGts,BKGtH->BKsH", ds_BKGts, q_BKGtH)
    dv_BKsH = _dot("BKGts,BKGtH->BKsH", p_BKGts, do_BKGtH)
    add = lambda x, part: _put(x, _cut(x, j, tiles.kv, 2) + part, j, 2)
    return dq_BKGtH, add(dk_BKSH, dk_BKsH), add(dv_BKSH, dv_BKsH)

  carry = jnp.zeros(q_BKGtH.shape, wide), *sums
  return _loop(*_live(rule, tiles, i), step, carry)
