"""Decoding's attention on TPU: a stream of cache blocks through a few slots.

    HBM   k, v of row b   [....#########....]      # = the keys that b sees
                               |blk|blk|b              (any others: never read)
    DMA                        v   v   v
    VMEM  slot 0 .. n - 1      0   1   2  |3  ...  next row's first block: the
    MXU                            0   1   2 |3     stream does not stop at rows

While one block is multiplied the next n - 1 are on their way, across rows too:
that many bytes in flight hide the memory's latency. The grid is (splits, B);
each split is a stream of its own over its part of every row's keys.

The cache is read in the order in which XLA lays it out, else XLA would copy all
of it first; so there are three views of it, and one arithmetic:

    token  [S, K, H]   H % 128 == 0 and K of 2, 4, 8, 16, ...
    head   [K, S, H]   H % 128 == 0 and other K (one that a tile would pad)
    lane   [K * H, S]  other H (one that 128 lanes would pad)

R = K * G query rows meet the C = K * block keys of a block in one matmul, where
a bias shuts out the keys of other heads: the MXU has to be loaded with each key
once in any case, and the rows ride along. In the lane view each query lies in
its own head's H of K * H features, so that no bias is needed and C = block.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import arguments, layout
from kernels.softmax import join
from kernels.splits import bounds
from kernels.tpu import LANES, LOG2E, NEVER, accumulate, across, dot

BLOCK_BYTES = 2**19  # of keys, and as much of values
SLOT_BYTES = 2**22  # of both, in all slots
MOST_SCORES = 2**17  # R * C: half a megabyte of fp32


class _View(NamedTuple):
  """How a block of the cache lies in memory; hashable, static."""

  order: str
  K: int
  H: int
  block: int
  slots: int
  rows: int
  softcap: float | None
  scale: float

  @property
  def buffer(self) -> tuple[int, ...]:
    if self.order == "lane":
      return self.K * self.H, self.block
    tokens, heads = self.block, self.K
    shape = (tokens, heads) if self.order == "token" else (heads, tokens)
    return *shape, self.H

  @property
  def align(self) -> int:
    """Where a block may start: DMA wants whole tiles, if tokens are tiled."""
    return 1 if self.order == "token" else LANES

  @property
  def columns(self) -> int:
    return self.block * (1 if self.order == "lane" else self.K)

  def at(self, cache: Any, row: Any, start: Any) -> Any:
    """The block of an HBM reference that starts at token `start`."""
    tokens = pl.ds(pl.multiple_of(start, self.align), self.block)
    if self.order == "token":
      return cache.at[row, tokens]
    return cache.at[row, :, tokens]

  def flat(self, x: jax.Array) -> jax.Array:
    """A block as a matrix, keys by features (lane: features by keys)."""
    return x if self.order == "lane" else x.reshape(self.columns, self.H)

  def token_of_columns(self) -> np.ndarray:
    """Which token of the block each of a matrix's keys is, [1, columns]."""
    c = np.arange(self.columns, dtype=np.int32)[None]
    return {"token": c // self.K, "head": c % self.block, "lane": c}[self.order]

  def bias(self, G: int) -> np.ndarray:
    """0 where row and column are of one head, NEVER elsewhere."""
    row = np.minimum(np.arange(self.rows) // G, self.K - 1)[:, None]
    c = np.arange(self.columns)[None]
    head = c % self.K if self.order == "token" else c // self.block
    return np.where(row == head, 0, NEVER).astype(np.float32)


def decode(
  q_BKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  first_B: jax.Array,
  end_B: jax.Array,
  scale: float,
  softcap: float | None,
  splits: int | None = None,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BKGH, lse_BKG) over the keys [first, end) of each row.

  `splits` is by default the number of cores that share a program (2 on v4 and
  v5p). Where S is no multiple of 128 and the view is not `token`, or S is less
  than a block, XLA pads the cache first, which reads it once more.
  """
  B, K, G, H = q_BKGH.shape
  parts = splits or getattr(arguments.device(), "num_cores", None) or 1
  order = _order(K, H, k_BSKH.dtype)
  if order == "lane" and H % 16:
    pad = [(0, 0)] * 3 + [(0, -H % LANES)]
    q_BKGH, k_BSKH, v_BSKH = (jnp.pad(x, pad) for x in (q_BKGH, k_BSKH, v_BSKH))
    order = _order(K, q_BKGH.shape[-1], k_BSKH.dtype)
  view = _view(order, q_BKGH, k_BSKH, scale, softcap)
  k, v = (_lay_out(view, x) for x in (k_BSKH, v_BSKH))
  q = _queries(view, q_BKGH)
  work = _work(view, first_B, end_B, parts)
  o, lse = _call(view, G, q, k, v, work, parts, interpret)
  o, lse = o[:, :, : K * G], lse[:, :, : K * G, 0].reshape(parts, B, K, G)
  if order == "lane":
    o = layout.own(o, K)
  o = o.reshape(parts, B, K, G, view.H)[..., :H]
  o_BKGH, lse_BKG = join(o, lse)
  return o_BKGH.astype(q_BKGH.dtype), lse_BKG


def _order(K: int, H: int, dtype: Any) -> str:
  """The view that costs no copy where XLA laid the cache out by itself."""
  if H % LANES:
    return "lane"
  small = (2, 4) if jnp.dtype(dtype).itemsize == 2 else (1, 2, 4)
  return "token" if K in small or K % 8 == 0 else "head"


def _view(order, q_BKGH, k_BSKH, scale, softcap) -> _View:
  _, K, G, H = q_BKGH.shape
  rows = K * G + -(K * G) % (32 // q_BKGH.dtype.itemsize)
  token = K * H * k_BSKH.dtype.itemsize
  most = MOST_SCORES // (rows * (1 if order == "lane" else K))
  block = max(min(BLOCK_BYTES // token, most) // LANES, 1) * LANES
  S = k_BSKH.shape[1]
  block = min(block, S + -S % LANES)
  slots = min(max(SLOT_BYTES // (2 * block * token), 2), 8)
  return _View(order, K, H, block, slots, rows, softcap, scale)


def _lay_out(view: _View, x_BSKH: jax.Array) -> jax.Array:
  """The cache in the view's order: padded if it must be, else bitcasts."""
  S = x_BSKH.shape[1]
  if view.block > S or (view.order != "token" and S % LANES):
    x_BSKH = jnp.pad(x_BSKH, ((0, 0), (0, -S % LANES), (0, 0), (0, 0)))
  if view.order == "token":
    return x_BSKH
  if view.order == "head":
    return x_BSKH.swapaxes(1, 2)
  B, S, K, H = x_BSKH.shape
  return x_BSKH.transpose(0, 2, 3, 1).reshape(B, K * H, S)


def _queries(view: _View, q_BKGH: jax.Array) -> jax.Array:
  """The query rows of a matmul, [B, rows, features]."""
  B, K, G, H = q_BKGH.shape
  q = q_BKGH.reshape(B, K * G, H)
  if view.order == "lane":
    q = layout.spread(q_BKGH)
  return jnp.pad(q, ((0, 0), (0, view.rows - K * G), (0, 0)))


def _work(view: _View, first_B, end_B, splits: int) -> tuple[jax.Array, ...]:
  """What the scalar core reads, int32 [splits * B] each.

  `first` and `end` bound the keys of a split of a row, `before` counts the
  blocks that its stream has read until then, `next` is the stream's next row
  that has any (-1: none).
  """
  first_sB, end_sB = bounds(first_B, end_B, splits, LANES)
  blocks_sB = _blocks(view, first_sB, end_sB)
  before_sB = jnp.cumsum(blocks_sB, 1) - blocks_sB
  B = first_B.shape[0]
  row_sB = jnp.where(blocks_sB > 0, jnp.arange(B)[None], B)
  later_sB = jax.lax.cummin(row_sB, axis=1, reverse=True)
  next_sB = jnp.pad(later_sB[:, 1:], ((0, 0), (0, 1)), constant_values=B)
  next_sB = jnp.where(next_sB == B, -1, next_sB)
  work = (first_sB, end_sB, before_sB, next_sB)
  return tuple(x.reshape(-1).astype(jnp.int32) for x in work)


def _blocks(view: _View, first: Any, end: Any) -> Any:
  """How many blocks hold the keys [first, end)."""
  start = jax.lax.div(first, view.align) * view.align
  count = jax.lax.div(end - start + view.block - 1, view.block)
  return jnp.where(end > first, count, 0)


def _call(view: _View, G: int, q, k, v, work, splits: int, interpret):
  """Returns o [splits, B, rows, features] and lse [..., 128], both fp32."""
  B, rows, features = q.shape
  bias = view.bias(G) if view.columns > view.block else np.zeros((8, LANES))
  tokens = view.token_of_columns()
  whole = lambda x: pl.BlockSpec(x.shape, lambda s, b, *_: (0, 0))
  row = lambda n: pl.BlockSpec((1, 1, rows, n), lambda s, b, *_: (s, b, 0, 0))
  S = k.shape[-1] if view.order == "lane" else k[0].size // (view.K * view.H)
  out = lambda n: jax.ShapeDtypeStruct((splits, B, rows, n), jnp.float32)
  buffer = pltpu.VMEM((view.slots, *view.buffer), k.dtype)
  state = lambda n: pltpu.VMEM((rows, n), jnp.float32)
  return pl.pallas_call(
    functools.partial(_kernel, view, B, S),
    out_shape=[out(features), out(LANES)],
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=4,
      grid=(splits, B),
      in_specs=[
        pl.BlockSpec((1, rows, features), lambda s, b, *_: (b, 0, 0)),
        whole(bias),
        whole(tokens),
        pl.BlockSpec(memory_space=pl.ANY),
        pl.BlockSpec(memory_space=pl.ANY),
      ],
      out_specs=[row(features), row(LANES)],
      scratch_shapes=[
        buffer,
        buffer,
        state(LANES),
        state(LANES),
        state(features),
        pltpu.SMEM((2,), jnp.int32),
        pltpu.SemaphoreType.DMA((2, view.slots)),
      ],
    ),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary")
    ),
    cost_estimate=pl.CostEstimate(
      flops=4 * q.size * S,
      bytes_accessed=2 * k.size * k.dtype.itemsize,
      transcendentals=B * rows * S,
    ),
    interpret=interpret,
    name="decode_attention",
  )(*work, q, jnp.asarray(bias, jnp.float32), jnp.asarray(tokens), k, v)


def _kernel(view: _View, B: int, S: int, *refs):
  """One row of one split: see the head of the file."""
  firsts, ends, befores, nexts, q_ref, bias_ref, tokens_ref, k_hbm, v_hbm = (
    refs[:9]
  )
  o_ref, lse_ref, k_buffer, v_buffer, *state, ahead, arrived = refs[9:]
  m_ref, l_ref, acc_ref = state
  split, row = pl.program_id(0), pl.program_id(1)
  first, end, before = (x[split * B + row] for x in (firsts, ends, befores))
  blocks = _blocks(view, first, end)

  def span(item, i):
    """Where block i begins, and where it is read: S must hold all of it."""
    at = jax.lax.div(firsts[item], view.align) * view.align + i * view.block
    return at, jnp.minimum(at, S - view.block)

  def copies(row, i, slot):
    _, start = span(split * B + row, i)
    return [
      pltpu.make_async_copy(
        view.at(hbm, row, start), buffer.at[slot], arrived.at[n, slot]
      )
      for n, (hbm, buffer) in enumerate([(k_hbm, k_buffer), (v_hbm, v_buffer)])
    ]

  def fetch(slot):
    """Starts the stream's next block, if there is any."""
    row, i = ahead[0], ahead[1]

    @pl.when(row >= 0)
    def _():
      for copy in copies(row, i, slot):
        copy.start()
      item = split * B + row
      last = i + 1 == _blocks(view, firsts[item], ends[item])
      ahead[0] = jnp.where(last, nexts[item], row)
      ahead[1] = jnp.where(last, 0, i + 1)

  def body(i, _):
    slot = jax.lax.rem(before + i, view.slots)
    fetch(jax.lax.rem(before + i + view.slots - 1, view.slots))
    for copy in copies(row, i, slot):
      copy.wait()
    at, start = span(split * B + row, i)
    low, high = jnp.maximum(first, at) - start, end - start
    edge = (low > 0) | (high < view.block)
    refs = q_ref, bias_ref, k_buffer.at[slot], v_buffer.at[slot], *state
    inside = tokens_ref, low, high
    pl.when(edge)(lambda: _attend(view, refs, inside))
    pl.when(jnp.logical_not(edge))(lambda: _attend(view, refs, None))

  m_ref[...] = jnp.full_like(m_ref, NEVER)
  l_ref[...] = jnp.zeros_like(l_ref)
  acc_ref[...] = jnp.zeros_like(acc_ref)

  @pl.when((blocks > 0) & (before == 0))
  def _():
    ahead[0], ahead[1] = row, 0
    jax.lax.fori_loop(0, view.slots - 1, lambda slot, _: fetch(slot), None)

  jax.lax.fori_loop(0, blocks, body, None)
  l = l_ref[...]
  some = jnp.where(l == 0, 1, l)
  o_ref[0, 0] = acc_ref[...] / across(some, acc_ref.shape[1])
  lse_ref[0, 0] = jnp.where(
    l == 0, -jnp.inf, m_ref[...] / LOG2E + jnp.log(some)
  )


def _attend(view: _View, refs: tuple, inside: tuple | None):
  """Takes one block of keys into the online softmax, in base 2."""
  q_ref, bias_ref, k_ref, v_ref, *state = refs
  k, v = k_ref[...], v_ref[...]
  keys, features = (1, 0) if view.order == "lane" else (0, 1)
  s = dot(q_ref[0], view.flat(k), (1, features))
  if view.softcap is None:
    s *= view.scale * LOG2E
  else:
    s = jnp.tanh(s * (view.scale / view.softcap)) * (view.softcap * LOG2E)
  if view.columns > view.block:
    s += bias_ref[...]
  if inside is not None:
    tokens_ref, low, high = inside
    seen = (tokens_ref[...] >= low) & (tokens_ref[...] < high)
    s = jnp.where(seen, s, NEVER)
    axis = 0 if view.order == "token" else 1
    token = jax.lax.broadcasted_iota(jnp.int32, v.shape, axis)
    v = jnp.where((token >= low) & (token < high), v, jnp.zeros_like(v))
  accumulate(state, s, view.flat(v), keys)
