"""Ragged paged attention on TPU: new tokens go out to their pages by DMA, then
blocks of pages stream in through a few slots.

    items   | seq 0: q 0..63 | seq 0: q 64..99 | seq 1: q 100 | ...   the grid
    pages        [3][7][1]        [3][7][1][4]     [9][2]
    DMA     blk 0 | blk 1 | blk 0 ...   one stream over all items: n - 1 blocks
    VMEM    0     | 1     | 2     ...   and the next item's queries on their way

An item is up to `queries` tokens of one sequence. Its keys are walked from the
first page that its window reaches to its last token's. An item of one token
(decode) multiplies its R = K * G query rows with a block's keys of all heads at
once, the other heads' shut out by a bias, as `decode_tpu` does; any other one
turns the block head-major once and goes over the heads.

Only whole pages are read, and none beyond an item's end: places of the table
that do not matter may hold any number.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.ragged_batch import Batch, Items, cut, places
from kernels.tpu import (
  LANES,
  LOG2E,
  NEVER,
  VMEM_BYTES,
  accumulate,
  across,
  dot,
)

BLOCK_BYTES = 2**20  # of pages, in the queries' dtype
SLOT_BYTES = 2**22  # of blocks, in all slots
ROWS = 256  # query rows of a head in one matmul
KEYS = 512
AT_ONCE = 64  # copies of new tokens in flight
GIVEN_BYTES = 2**24  # of VMEM, on the chip that gives least
SMEM_BYTES = 2**20 - 2**13  # of scalar memory; the compiler keeps the rest


class _Shape(NamedTuple):
  """Static sizes: hashable, a part of the compile key."""

  K: int
  G: int  # padded to whole tiles
  S: int  # tokens of a page
  pages: int  # of a block
  slots: int
  most: int  # pages of a sequence
  heads: int  # of a page
  h: int
  features: int  # of a query: h / 2, or h where half of it is no whole vector
  queries: int
  softcap: float | None

  @property
  def block(self) -> int:
    return self.pages * self.S

  @property
  def rows(self) -> int:
    return self.queries * self.G

  @property
  def whole(self) -> bool:
    """If keys and values are multiplied as one, the queries' other half 0."""
    return self.features == self.h


def attend(
  batch: Batch, kv_QKh: jax.Array, interpret: Any
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_QKGH, pages_PSKh) with the tokens `kv_QKh` written first."""
  Q, _, G, H = batch.q_QKGH.shape
  shape = _shape(batch)
  items = cut(batch, shape.queries)
  _check_scalars(batch, items)
  page_Q, slot_Q = places(batch)
  pages = _write(batch.pages_PSKh, kv_QKh, page_Q, slot_Q, interpret)
  tail = [(0, shape.queries), (0, 0), (0, shape.G - G), (0, shape.features - H)]
  q = jnp.pad(batch.q_QKGH, tail).swapaxes(0, 1)
  o = _call(shape, batch._replace(pages_PSKh=pages), items, q, interpret)
  first = shape.h // 2 if shape.whole else 0
  o_QKGH = o.swapaxes(0, 1)[:Q, :, :G, first : first + H]
  at_Q = jnp.arange(Q)
  owned_Q = (at_Q >= batch.q_starts[0]) & (at_Q < batch.q_starts[-1])
  o_QKGH = o_QKGH.astype(jnp.float32) * batch.v_scale_K[None, :, None, None]
  o_QKGH = jnp.where(owned_Q[:, None, None, None], o_QKGH, 0)
  return o_QKGH.astype(batch.q_QKGH.dtype), pages


def _shape(batch: Batch) -> _Shape:
  Q, K, G, _ = batch.q_QKGH.shape
  _, S, heads, h = batch.pages_PSKh.shape
  B, most = batch.page_table.shape
  size = batch.q_QKGH.dtype.itemsize
  G = max(4 // size, 1 << (G - 1).bit_length()) if G < 8 else G + -G % 8
  token = heads * h * size
  pages = max(1, min(BLOCK_BYTES // token, KEYS) // S)
  queries = max(16, min(ROWS // G, 128) // 16 * 16)
  queries = 1 if B >= Q else min(queries, Q + -Q % 16)
  features = h if h // 2 % LANES else h // 2
  pages = min(pages, most)
  held = pages * S * heads * h * batch.pages_PSKh.dtype.itemsize
  slots = min(max(SLOT_BYTES // held, 2), 8)
  sizes = K, G, S, pages, slots, most, heads, h, features, queries
  return _Shape(*sizes, batch.softcap)


def _check_scalars(batch: Batch, items: Items) -> None:
  """Raises ValueError where scalar memory does not hold what is told of."""
  q, table = batch.q_QKGH.shape, batch.page_table.shape
  told = 4 * (6 * items.owner.shape[0] + batch.page_table.size)
  if max(12 * q[0], told) > SMEM_BYTES:
    raise ValueError(
      f"q_QKGH {q} and page_table {table} ask for {12 * q[0]} and {told} bytes "
      f"of scalar memory, which holds {SMEM_BYTES}: pass fewer tokens or "
      'sequences at once, use larger pages, or impl="xla"'
    )


def _vmem_limit(batch: Batch, held: list) -> int | None:
  """Returns what to ask for if it is more than compilers give unasked.

  Not more than is needed: XLA keeps operands in the rest.

  Raises:
    ValueError: VMEM does not hold the kernel's arrays.
  """
  need = sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in held)
  if need > VMEM_BYTES:
    raise ValueError(
      f"pages_PSKh {batch.pages_PSKh.shape} and q_QKGH {batch.q_QKGH.shape} "
      f"ask for {need} bytes of VMEM, which holds {VMEM_BYTES}: use smaller "
      'pages, fewer heads a device, or impl="xla"'
    )
  return need if need > GIVEN_BYTES else None


def _write(pages, kv_QKh, page_Q, slot_Q, interpret) -> jax.Array:
  """Copies each new token to its place, a full page as one piece.

  A plan of 0 copies nothing (no place, or within a piece), 1 a token, 2 a page.
  """
  P, S = pages.shape[:2]
  Q = kv_QKh.shape[0]
  at_Q = jnp.arange(Q)
  last_Q = jnp.minimum(at_Q + S - 1, Q - 1)
  whole_Q = (slot_Q == 0) & (slot_Q[last_Q] == S - 1) & (at_Q + S <= Q)
  whole_Q &= (page_Q < P) & (page_Q[last_Q] == page_Q)
  within_Q = whole_Q[jnp.maximum(at_Q - slot_Q, 0)] & (at_Q >= slot_Q)
  within_Q &= page_Q[jnp.maximum(at_Q - slot_Q, 0)] == page_Q
  plan_Q = jnp.where(page_Q < P, jnp.where(within_Q, 0, 1), 0)
  plan_Q = jnp.where(whole_Q, 2, plan_Q).astype(jnp.int32)
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  return pl.pallas_call(
    _write_kernel,
    out_shape=jax.ShapeDtypeStruct(pages.shape, pages.dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(-(-Q // AT_ONCE),),
      in_specs=[anywhere, anywhere],
      out_specs=anywhere,
      scratch_shapes=[pltpu.SemaphoreType.DMA],
    ),
    input_output_aliases={4: 0},
    interpret=interpret,
    name="ragged_write",
  )(plan_Q, page_Q.astype(jnp.int32), slot_Q.astype(jnp.int32), kv_QKh, pages)


def _write_kernel(plan, page, slot, new_hbm, _, pages_hbm, arrived):
  """Starts up to AT_ONCE copies, then waits for them."""
  S = pages_hbm.shape[1]
  low = pl.program_id(0) * AT_ONCE
  high = jnp.minimum(low + AT_ONCE, new_hbm.shape[0])

  def each(what):
    def token(t, _):
      single = pltpu.make_async_copy(
        new_hbm.at[t], pages_hbm.at[page[t], slot[t]], arrived
      )
      pl.when(plan[t] == 1)(lambda: what(single))
      if new_hbm.shape[0] >= S:
        many = pltpu.make_async_copy(
          new_hbm.at[pl.ds(t, S)], pages_hbm.at[page[t]], arrived
        )
        pl.when(plan[t] == 2)(lambda: what(many))

    jax.lax.fori_loop(low, high, token, None)

  each(lambda copy: copy.start())
  each(lambda copy: copy.wait())


def _call(shape: _Shape, batch: Batch, items: Items, q, interpret) -> jax.Array:
  """Returns o [K, Q + queries, G, features] in q's dtype."""
  K, G, R = shape.K, shape.G, shape.K * shape.G
  n = items.owner.shape[0]
  blocks = _blocks(shape, items.first, items.position + items.count)
  blocks = jnp.where(jnp.arange(n) < items.live, blocks, 0)
  scalars = [
    *items[:-1],
    jnp.cumsum(blocks) - blocks,
    items.live[None],
    batch.window[None],
    batch.page_table.reshape(-1),
  ]
  factor = LOG2E if shape.softcap is None else 1 / shape.softcap
  scale_K = (batch.scale_K * factor).astype(jnp.float32)
  columns = np.arange(shape.block * shape.heads)
  bias = np.arange(R)[:, None] // G == columns[None] % shape.heads
  vectors = [
    jnp.asarray(np.where(bias, 0, NEVER), jnp.float32),
    jnp.asarray(columns[None] // shape.heads, jnp.int32),
    jnp.asarray(np.arange(shape.rows)[:, None] // G, jnp.int32),
    jnp.repeat(scale_K, G)[:, None],
  ]
  whole = lambda x: pl.BlockSpec(x.shape, lambda i, *_: (0, 0))
  anywhere = pl.BlockSpec(memory_space=pl.ANY)
  dtype, pages = q.dtype, batch.pages_PSKh
  buffer = K, shape.queries, G, shape.features
  prefill = shape.queries > 1
  turned = (shape.heads, shape.block, shape.h) if prefill else (1, 8, LANES)
  state = lambda *s: pltpu.VMEM(s, jnp.float32)
  block = shape.block, shape.heads, shape.h
  rows = (K, shape.rows) if prefill else (1, 8)
  held = [
    pltpu.VMEM((shape.slots, *block), pages.dtype),
    pltpu.VMEM((2, *buffer), dtype),
    pltpu.VMEM(buffer, dtype),
    pltpu.VMEM(turned, dtype),
    *(state(R, x) for x in (LANES, LANES, shape.features)),
    *(state(*rows, x) for x in (LANES, LANES, shape.features)),
  ]
  # What may be spilled: scores and weights, a block and its masked copy.
  spilled = [state(2, *bias.shape), pltpu.VMEM((2, *block), dtype)]
  limit = _vmem_limit(batch, [*vectors, *held, *spilled])
  return pl.pallas_call(
    functools.partial(_kernel, shape),
    out_shape=jax.ShapeDtypeStruct(q.shape, dtype),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=len(scalars),
      grid=(n,),
      in_specs=[
        *(whole(x) for x in vectors),
        pl.BlockSpec(memory_space=pltpu.SMEM),
        anywhere,
        anywhere,
      ],
      out_specs=anywhere,
      scratch_shapes=[
        *held,
        pltpu.SMEM((2,), jnp.int32),
        pltpu.SemaphoreType.DMA((shape.slots,)),
        pltpu.SemaphoreType.DMA((2,)),
        pltpu.SemaphoreType.DMA,
      ],
    ),
    compiler_params=pltpu.CompilerParams(vmem_limit_bytes=limit),
    interpret=interpret,
    name="ragged_paged_attention",
  )(*scalars, *vectors, scale_K, q, pages)


def _blocks(shape: _Shape, first: Any, end: Any) -> Any:
  """How many blocks hold the keys [first, end), from first's page on."""
  start = jax.lax.div(first, shape.S) * shape.S
  return jax.lax.div(end - start + shape.block - 1, shape.block)


class _Refs(NamedTuple):
  """What the kernel is given, in order."""

  owner: Any
  at: Any
  count: Any
  position: Any
  first: Any
  before: Any
  live: Any
  window: Any
  table: Any
  bias: Any
  token_of_column: Any
  token_of_row: Any
  scale_of_row: Any
  scale: Any
  q_hbm: Any
  pages_hbm: Any
  o_hbm: Any
  pages: Any
  q: Any
  o: Any
  turned: Any
  m_one: Any
  l_one: Any
  acc_one: Any
  m: Any
  l: Any
  acc: Any
  ahead: Any
  pages_arrived: Any
  q_arrived: Any
  o_left: Any


def _kernel(shape: _Shape, *refs):
  """One item: see the head of the file."""
  r = _Refs(*refs)
  item = pl.program_id(0)
  pl.when(item < r.live[0])(lambda: _item(shape, r, item))


def _item(shape: _Shape, r: _Refs, item: Any):
  count = r.count[item]
  start = lambda n, i: (
    jax.lax.div(r.first[n], shape.S) * shape.S + i * shape.block
  )
  blocks = lambda n: _blocks(shape, r.first[n], r.position[n] + r.count[n])

  def page_copies(n, i, slot, what):
    """Does `what` with the copy of each page of block i that n has."""
    page = jax.lax.div(start(n, i), shape.S)
    left = r.position[n] + r.count[n] - start(n, i)
    left = jax.lax.div(left + shape.S - 1, shape.S)

    def one(j, _):
      hbm = r.pages_hbm.at[r.table[r.owner[n] * shape.most + page + j]]
      to = r.pages.at[slot, pl.ds(j * shape.S, shape.S)]
      what(pltpu.make_async_copy(hbm, to, r.pages_arrived.at[slot]))

    jax.lax.fori_loop(0, jnp.minimum(left, shape.pages), one, None)

  def query_copy(n, what):
    def some(tokens):
      hbm = r.q_hbm.at[:, pl.ds(r.at[n], tokens)]
      to = r.q.at[jax.lax.rem(n, 2), :, pl.ds(0, tokens)]
      what(pltpu.make_async_copy(hbm, to, r.q_arrived.at[jax.lax.rem(n, 2)]))

    _either(shape, r.count[n], some)

  begin = lambda copy: copy.start()
  finish = lambda copy: copy.wait()

  def fetch(slot):
    """Starts the stream's next block, if there is any."""
    n, i = r.ahead[0], r.ahead[1]

    @pl.when(n < r.live[0])
    def _():
      page_copies(n, i, slot, begin)
      last = i + 1 == blocks(n)
      r.ahead[0] = jnp.where(last, n + 1, n)
      r.ahead[1] = jnp.where(last, 0, i + 1)

  def body(i, _):
    at = r.before[item] + i
    slot = jax.lax.rem(at, shape.slots)
    fetch(jax.lax.rem(at + shape.slots - 1, shape.slots))
    page_copies(item, i, slot, finish)
    _block(shape, r, item, slot, start(item, i))

  @pl.when(item == 0)
  def _():
    r.ahead[0], r.ahead[1] = 0, 0
    jax.lax.fori_loop(0, shape.slots - 1, lambda slot, _: fetch(slot), None)
    query_copy(0, begin)

  pl.when(item + 1 < r.live[0])(lambda: query_copy(item + 1, begin))
  one, many = (r.m_one, r.l_one, r.acc_one), (r.m, r.l, r.acc)
  _either(shape, count, lambda n: _reset(*(one if n == 1 else many)))
  query_copy(item, finish)
  jax.lax.fori_loop(0, blocks(item), body, None)
  _finish(shape, r, count)

  def leave(tokens):
    to = r.o_hbm.at[:, pl.ds(r.at[item], tokens)]
    copy = pltpu.make_async_copy(r.o.at[:, pl.ds(0, tokens)], to, r.o_left)
    copy.start()
    copy.wait()  # the next item may write over what follows these tokens

  _either(shape, count, leave)


def _either(shape: _Shape, count: Any, do: Any):
  """Calls do(tokens) with 1 for decode and with `queries` for all else."""
  if shape.queries == 1:
    do(1)
    return
  pl.when(count == 1)(lambda: do(1))
  pl.when(count > 1)(lambda: do(shape.queries))


def _block(shape: _Shape, r: _Refs, item: Any, slot: Any, start: Any):
  """Takes one block of keys in, masked only where its edges need it."""
  first, count = r.first[item], r.count[item]
  position, window = r.position[item], r.window[0]
  high = start + shape.block
  inside = (high <= position + 1) & (start >= first)
  inside &= start > position + count - 1 - window

  def take(tokens):
    attend = _one if tokens == 1 else _many
    go = lambda edge: attend(shape, r, item, slot, start, edge)
    pl.when(inside)(lambda: go(False))
    pl.when(jnp.logical_not(inside))(lambda: go(True))

  _either(shape, count, take)


def _load(shape: _Shape, r: _Refs, item, slot, start, edge: bool) -> jax.Array:
  """The block in q's dtype, [tokens, heads, h]; 0 where it is not seen."""
  kv = r.pages[slot]
  if kv.dtype != r.q.dtype:
    kv = kv.astype(jnp.float32).astype(r.q.dtype)
  if edge:
    token = start + jax.lax.broadcasted_iota(jnp.int32, kv.shape, 0)
    end = r.position[item] + r.count[item]
    seen = (token >= r.first[item]) & (token < end)
    kv = jnp.where(seen, kv, jnp.zeros_like(kv))
  return kv


def _capped(shape: _Shape, s: jax.Array) -> jax.Array:
  if shape.softcap is None:
    return s
  return jnp.tanh(s) * (shape.softcap * LOG2E)


def _reset(m_ref, l_ref, acc_ref):
  m_ref[...] = jnp.full_like(m_ref, NEVER)
  l_ref[...] = jnp.zeros_like(l_ref)
  acc_ref[...] = jnp.zeros_like(acc_ref)


def _finish(shape: _Shape, r: _Refs, count: Any):
  """Brings an item's output into the form in which it leaves."""

  def one():
    o = r.acc_one[...] / across(r.l_one[...], shape.features)
    o = o.reshape(shape.K, shape.G, shape.features)
    r.o[:, 0] = o.astype(r.o.dtype)

  def many():
    own = r.token_of_row[...] < count

    def each(head, _):
      l = across(r.l[head], shape.features)
      o = jnp.where(own, r.acc[head] / l, 0)
      o = o.reshape(shape.queries, shape.G, shape.features)
      r.o[head] = o.astype(r.o.dtype)

    jax.lax.fori_loop(0, shape.K, each, None)

  _either(shape, count, lambda tokens: one() if tokens == 1 else many())


def _one(shape: _Shape, r: _Refs, item, slot, start, edge: bool):
  """Decode: the rows of all heads against the keys of all heads."""
  R = shape.K * shape.G
  kv = _load(shape, r, item, slot, start, edge)
  kv = kv.reshape(shape.block * shape.heads, shape.h)
  q = r.q[jax.lax.rem(item, 2)][:, 0].reshape(R, shape.features)
  s = dot(q, kv[:, : shape.features], (1, 1))
  s = _capped(shape, s * r.scale_of_row[...]) + r.bias[...]
  if edge:
    token = start + r.token_of_column[...]
    seen = (token >= r.first[item]) & (token <= r.position[item])
    s = jnp.where(seen, s, NEVER)
  v = kv if shape.whole else kv[:, shape.features :]
  accumulate((r.m_one, r.l_one, r.acc_one), s, v, 0)


def _many(shape: _Shape, r: _Refs, item, slot, start, edge: bool):
  """Prefill: head by head, on a block that is turned head-major once."""
  kv = _load(shape, r, item, slot, start, edge)
  r.turned[...] = pltpu.einshape("skh->ksh", kv)

  def one(head, _):
    q = r.q[jax.lax.rem(item, 2), head].reshape(shape.rows, shape.features)
    k = r.turned[head, :, : shape.features]
    s = _capped(shape, dot(q, k, (1, 1)) * r.scale[head])
    if edge:
      row = r.position[item] + r.token_of_row[...]
      key = start + jax.lax.broadcasted_iota(jnp.int32, (1, shape.block), 1)
      seen = (key <= row) & (key > row - r.window[0])
      s = jnp.where(seen, s, NEVER)
    v = r.turned[head] if shape.whole else r.turned[head, :, shape.features :]
    accumulate([x.at[head] for x in (r.m, r.l, r.acc)], s, v, 0)

  jax.lax.fori_loop(0, shape.K, one, None)
