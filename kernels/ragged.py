"""Attention of many sequences at once, prefill and decode mixed, over pages.

The queries of B sequences lie one after another on one axis, Q. Their keys and
values lie in pages that a table names, [P, S, K, 2H] with K and V side by side:

    pages_PSKh[page, slot, head] = [ key, H of h/2 | value, H of h/2 ]

S is the page size in tokens. Half of h is H rounded up to 64 and the heads are
rounded up to a whole tile (`empty_pages` does both): a token is then one piece
of memory that DMA can write, a page is one that DMA can read, and heads of 64
waste nothing of a TPU's 128 lanes.

The floor of a decode step is the bytes of the pages that are seen, B * length *
K * h * itemsize; that of prefill is 4 * H operations a query head and key.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from kernels import arguments, mask
from kernels.ragged_batch import Batch, Items, cut, owners, places
from kernels.softmax import capped, finite, some

QUANTIZED = ("int8", "float8_e4m3fn", "float8_e5m2")
EVERYTHING = 2**30  # a window that shuts out nothing
QUERIES = 32  # of one sequence, taken together
KEYS = 256


def empty_pages(P: int, S: int, K: int, H: int, dtype: Any) -> jax.Array:
  """Returns P pages of S tokens each for K heads of H, all 0."""
  return jnp.zeros(_pages_shape(P, S, K, H, dtype), dtype)


def _pages_shape(P, S, K, H, dtype) -> tuple[int, int, int, int]:
  """A tile holds whole words: 4 / itemsize heads, then 2, 4, 8, 16, 24 ..."""
  heads = max(4 // jnp.dtype(dtype).itemsize, 1 << (K - 1).bit_length())
  return P, S, heads if heads < 8 else K + -K % 8, 2 * (H + -H % 64)


def ragged_paged_attention(
  q_QKGH: jax.Array,
  k_QKH: jax.Array,
  v_QKH: jax.Array,
  pages_PSKh: jax.Array,
  page_table: jax.Array,
  kv_lengths: jax.Array,
  q_starts: jax.Array,
  *,
  window: Any = None,
  softcap: float | None = None,
  scale: float | None = None,
  kv_scales: jax.Array | None = None,
  impl: str | None = None,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Writes new keys and values to their pages; returns (o_QKGH, pages_PSKh).

  Sequence b owns the tokens [q_starts[b], q_starts[b + 1]) of Q, the last ones
  of its `kv_lengths[b]`: 1 to decode, more to prefill (a part of) a prompt,
  none to leave it alone. Token i of n stands at position kv_lengths[b] - n + i
  and sees the positions up to its own, or the last `window` of them (an int or
  int32 [], traced or not). Position s lies in slot s % S of the page
  page_table[b, s // S]; two sequences may share pages that neither writes.
  Tokens of Q that no sequence owns get o = 0. Slots beyond a length, pages that
  no token of this call sees (they may belong to others by now), and the places
  of such pages in the table (any number) are never looked at.

  Donate the pages to the jitted caller, and they are written in place. Pages of
  int8 or fp8 hold x / kv_scales; kv_scales is fp32 [2, K], keys' then values'.
  Scores are softcap * tanh(scale * q k^T / softcap), `scale` is H**-0.5 unless
  given, products accumulate in fp32.

  Raises:
    ValueError: shapes or dtypes do not fit; starts, lengths or the table, where
      their values can be read, do not; `impl` is not one of reference, xla and
      tpu (a Hopper device runs xla); a TPU's memories are too small.
  """
  arrays = (q_QKGH, k_QKH, v_QKH, pages_PSKh)
  _check_shapes(*arrays, page_table, kv_lengths, q_starts)
  _check_kinds(*arrays, kv_scales)
  arguments.softcap_and_blocks(softcap, None)
  window = _window(window)
  _check_values(q_QKGH, pages_PSKh, page_table, kv_lengths, q_starts, window)
  impl = _choose(impl if q_QKGH.size else "reference", q_QKGH.dtype)
  _, K, _, H = q_QKGH.shape
  if kv_scales is None:
    kv_scales = jnp.ones((2, K), jnp.float32)
  kv_QKh = _beside(k_QKH, v_QKH, kv_scales, pages_PSKh)
  integers = lambda x: jnp.asarray(x, jnp.int32)
  batch = Batch(
    q_QKGH,
    pages_PSKh,
    integers(page_table),
    integers(kv_lengths),
    integers(q_starts),
    integers(window),
    kv_scales[0] * (H**-0.5 if scale is None else scale),
    kv_scales[1],
    softcap,
  )
  if impl == "tpu":
    module = importlib.import_module("kernels.ragged_tpu")
    return module.attend(batch, kv_QKh, interpret)
  batch = batch._replace(pages_PSKh=write(batch, kv_QKh))
  attend = reference if impl == "reference" else xla
  return attend(batch), batch.pages_PSKh


def _window(window: Any) -> Any:
  """The window as one integer; None shuts out nothing."""
  if window is None:
    return EVERYTHING
  if np.ndim(window):
    raise ValueError(f"window is {np.shape(window)}; it is one integer")
  static, window_1 = arguments.window_of(window, 1)
  return static if window_1 is None else window_1[0]


def _choose(impl: str | None, dtype: Any) -> str:
  if impl == "hopper":
    raise ValueError(
      'impl is "hopper", which has no ragged_paged_attention: use impl="xla"'
    )
  return arguments.choose(impl, ("reference", "xla", "tpu"), dtype)


def _beside(k_QKH, v_QKH, kv_scales, pages_PSKh) -> jax.Array:
  """New keys and values as a page holds them, [Q, heads, h]."""
  _, _, heads, h = pages_PSKh.shape
  _, K, H = k_QKH.shape
  dtype = pages_PSKh.dtype
  pad = [(0, 0), (0, heads - K), (0, h // 2 - H)]

  def place(x_QKH, scale_K):
    if dtype != x_QKH.dtype:
      x_QKH = x_QKH.astype(jnp.float32) / scale_K[None, :, None]
      whole = jnp.issubdtype(dtype, jnp.integer)
      most = float((jnp.iinfo if whole else jnp.finfo)(dtype).max)
      x_QKH = jnp.clip(jnp.round(x_QKH) if whole else x_QKH, -most, most)
    return jnp.pad(x_QKH.astype(dtype), pad)

  parts = place(k_QKH, kv_scales[0]), place(v_QKH, kv_scales[1])
  return jnp.concatenate(parts, -1)


def write(batch: Batch, kv_QKh: jax.Array) -> jax.Array:
  """Returns the pages with the new tokens in them."""
  page_Q, slot_Q = places(batch)
  return batch.pages_PSKh.at[page_Q, slot_Q].set(kv_QKh, mode="drop")


def _halves(x: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Keys and values, [..., K, H] each, of what pages hold, in q's dtype."""
  _, K, _, H = batch.q_QKGH.shape
  half = x.shape[-1] // 2
  x = x[..., :K, :].astype(batch.q_QKGH.dtype)
  return x[..., :H], x[..., half : half + H]


def reference(batch: Batch) -> jax.Array:
  """Returns o_QKGH: the meaning, a whole sequence's keys for every token."""
  owner_Q, position_Q, owned_Q = owners(batch)
  B, most = batch.page_table.shape
  S = batch.pages_PSKh.shape[1]
  held = batch.pages_PSKh[batch.page_table]
  held = held.reshape(B, most * S, *held.shape[3:])[owner_Q]
  k_QSKH, v_QSKH = _halves(held, batch)
  at_1S, at_Q1 = jnp.arange(most * S)[None, :], position_Q[:, None]
  seen_QS = owned_Q[:, None] & mask.inside(at_Q1, at_1S, True, batch.window)
  v_QSKH = jnp.where(seen_QS[:, :, None, None], v_QSKH, 0)
  exact = {
    "preferred_element_type": jnp.promote_types(k_QSKH.dtype, jnp.float32),
    "precision": jax.lax.Precision.HIGHEST,
  }
  s_QKGS = jnp.einsum("QKGH,QSKH->QKGS", batch.q_QKGH, k_QSKH, **exact)
  s_QKGS = capped(s_QKGS * batch.scale_K[None, :, None, None], batch.softcap)
  s_QKGS = jnp.where(seen_QS[:, None, None], s_QKGS, -jnp.inf)
  p_QKGS = jnp.exp(s_QKGS - finite(s_QKGS.max(-1))[..., None])
  l_QKG1 = some(p_QKGS.sum(-1))[..., None]
  p_QKGS = (p_QKGS / l_QKG1).astype(v_QSKH.dtype)
  o_QKGH = jnp.einsum("QKGS,QSKH->QKGH", p_QKGS, v_QSKH, **exact)
  o_QKGH = o_QKGH * batch.v_scale_K[None, :, None, None]
  return o_QKGH.astype(batch.q_QKGH.dtype)


def xla(batch: Batch) -> jax.Array:
  """Returns o_QKGH, an item after another, reading the pages that each sees.

  What follows an item's own rows of the output is overwritten by the next.
  """
  Q = batch.q_QKGH.shape[0]
  queries = 1 if batch.kv_lengths_B.shape[0] >= Q else min(QUERIES, Q)
  items = cut(batch, queries)
  tail = ((0, queries), (0, 0), (0, 0), (0, 0))
  batch = batch._replace(q_QKGH=jnp.pad(batch.q_QKGH, tail))

  def body(i, o_QKGH):
    item = Items(*(x[i] for x in items[:-1]), live=items.live)
    o_qKGH = _attend(batch, item, queries)
    return jax.lax.dynamic_update_slice_in_dim(o_QKGH, o_qKGH, item.at, 0)

  o_QKGH = jnp.zeros_like(batch.q_QKGH)
  return jax.lax.fori_loop(0, items.live, body, o_QKGH)[:Q]


def _attend(batch: Batch, item: Items, queries: int) -> jax.Array:
  """Returns one item's o_qKGH: an online softmax over blocks of its pages."""
  _, K, G, H = batch.q_QKGH.shape
  _, S, *_heads = batch.pages_PSKh.shape
  most = batch.page_table.shape[1]
  pages = max(1, min(KEYS // S, most))
  q_qKGH = jax.lax.dynamic_slice_in_dim(batch.q_QKGH, item.at, queries, 0)
  row_q1 = jnp.arange(queries)[:, None]
  row_q1 = jnp.where(row_q1 < item.count, item.position + row_q1, -1)
  wide = jnp.promote_types(jnp.float32, q_qKGH.dtype)
  exact = {"preferred_element_type": wide, "precision": "highest"}

  def body(i, carry):
    m_KGq, l_KGq, o_KGqH = carry
    column = i * pages + jnp.arange(pages)
    name = batch.page_table[item.owner, jnp.minimum(column, most - 1)]
    held_SKh = batch.pages_PSKh[name].reshape(
      pages * S, *batch.pages_PSKh.shape[2:]
    )
    k_SKH, v_SKH = _halves(held_SKh, batch)
    at_1S = (i * pages * S + jnp.arange(pages * S))[None, :]
    seen_qS = mask.inside(row_q1, at_1S, True, batch.window)
    v_SKH = jnp.where(seen_qS.any(0)[:, None, None], v_SKH, 0)
    s_KGqS = jnp.einsum("qKGH,SKH->KGqS", q_qKGH, k_SKH, **exact)
    s_KGqS = s_KGqS * batch.scale_K[:, None, None, None]
    s_KGqS = capped(s_KGqS, batch.softcap)
    s_KGqS = jnp.where(seen_qS[None, None], s_KGqS, -jnp.inf)
    new_KGq = jnp.maximum(m_KGq, s_KGqS.max(-1))
    high_KGq = finite(new_KGq)
    p_KGqS = jnp.exp(s_KGqS - high_KGq[..., None])
    fade_KGq = jnp.exp(m_KGq - high_KGq)
    l_KGq = l_KGq * fade_KGq + p_KGqS.sum(-1)
    p_KGqS = p_KGqS.astype(v_SKH.dtype)
    add_KGqH = jnp.einsum("KGqS,SKH->KGqH", p_KGqS, v_SKH, **exact)
    return new_KGq, l_KGq, o_KGqH * fade_KGq[..., None] + add_KGqH

  zero_KGq = jnp.zeros((K, G, queries), wide)
  carry = zero_KGq - jnp.inf, zero_KGq, jnp.zeros((K, G, queries, H), wide)
  low, high = item.first // (pages * S), item.position + item.count
  high = (high + pages * S - 1) // (pages * S)
  _, l_KGq, o_KGqH = jax.lax.fori_loop(low, high, body, carry)
  o_KGqH = o_KGqH * batch.v_scale_K[:, None, None, None]
  o_KGqH = o_KGqH / some(l_KGq)[..., None]
  return o_KGqH.transpose(2, 0, 1, 3).astype(q_qKGH.dtype)


def _check_shapes(q, k, v, pages, table, lengths, starts) -> None:
  """Raises ValueError naming what does not fit, with both shapes."""
  if q.ndim != 4 or pages.ndim != 4:
    raise ValueError(
      f"q_QKGH and pages_PSKh have 4 axes; they are {q.shape}, {pages.shape}"
    )
  Q, K, _, H = q.shape
  for name, x in (("k_QKH", k), ("v_QKH", v)):
    arguments.shaped(name, x, (Q, K, H), "q_QKGH", q)
  P, S = pages.shape[:2]
  shape = _pages_shape(P, S, K, H, pages.dtype)
  if pages.shape != shape:
    raise ValueError(
      f"pages_PSKh is {pages.shape} of {pages.dtype}; {K} heads of {H} lie in "
      f"{shape} (see empty_pages)"
    )
  B = jnp.shape(lengths)
  if len(B) != 1 or B[0] == 0:
    raise ValueError(f"kv_lengths is {B}; it is [B], and B is not 0")
  beside = "kv_lengths", lengths
  arguments.shaped("page_table", table, (*B, *jnp.shape(table)[1:2]), *beside)
  arguments.shaped("q_starts", starts, (B[0] + 1,), *beside)
  arguments.integers("page_table", table)
  arguments.integers("kv_lengths", lengths)
  arguments.integers("q_starts", starts)


def _check_kinds(q, k, v, pages, kv_scales) -> None:
  """Raises ValueError where dtypes or the scales do not fit."""
  arguments.alike("q_QKGH", q, k_QKH=k, v_QKH=v)
  quantized = jnp.dtype(pages.dtype).name in QUANTIZED
  if not quantized and pages.dtype != q.dtype:
    raise ValueError(f"pages_PSKh is {pages.dtype}, q_QKGH {q.dtype}")
  if quantized != (kv_scales is not None):
    raise ValueError(
      f"kv_scales is {'absent' if kv_scales is None else 'given'}, pages_PSKh "
      f"{pages.dtype}: pages of {', '.join(QUANTIZED)} have scales, others none"
    )
  if kv_scales is not None and kv_scales.shape != (2, q.shape[1]):
    raise ValueError(
      f"kv_scales is {kv_scales.shape}, q_QKGH {q.shape}: it is [2, K]"
    )


def _check_values(q, pages, table, lengths, starts, window) -> None:
  """Raises ValueError where values that can be read do not fit."""
  if any(isinstance(x, Tracer) for x in (table, lengths, starts)):
    return
  table, lengths, starts = (np.asarray(x) for x in (table, lengths, starts))
  tokens = np.diff(starts)
  if starts[0] < 0 or (tokens < 0).any() or starts[-1] > q.shape[0]:
    raise ValueError(
      f"q_starts rises from 0 or more to at most Q, with q_QKGH {q.shape}; it "
      f"is {starts}"
    )
  P, S = pages.shape[:2]
  most = table.shape[1] * S
  live = tokens > 0
  if (lengths < tokens).any() or (lengths[live] > most).any():
    raise ValueError(
      f"kv_lengths lie between a sequence's tokens, {tokens}, and the {most} "
      f"that page_table {table.shape} has room for; they are {lengths}"
    )
  # What is surely seen: a traced window may be as short as 1.
  window = 1 if isinstance(window, Tracer) else int(window)
  first = np.maximum(lengths - tokens - window + 1, 0)
  page = np.arange(table.shape[1])[None]
  used = (page >= (first // S)[:, None]) & (page * S < lengths[:, None])
  named = table[used & live[:, None]]
  if named.size and (named.min() < 0 or named.max() >= P):
    raise ValueError(
      f"page_table names pages {named.min()} to {named.max()}; pages_PSKh is "
      f"{pages.shape}"
    )
