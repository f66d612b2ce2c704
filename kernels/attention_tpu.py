"""Flash attention for TPU in Pallas (impl="tpu"): forward and fused backward.

The schedule of FlashAttention (2205.14135; backward 2307.08691) over the tiles
that `kernels.tiles_tpu` lists: keys and values are loaded once for all G heads
of a group, whose gradients the products themselves sum, tiles outside of the
mask are never visited, and only tiles on its edge compute one.

Inside, operands are head-major, [B * K, G, T, H] and [B * K, S, H]: XLA fuses
the transposes into the projections around. T and S are padded to whole tiles, H
is taken as it is. lse and delta travel as fp32 [B * K, G, T], time in lanes.
Products accumulate in fp32; bf16 operands enter the MXU as bf16, fp32 ones at
HIGHEST precision. Scores stay fp32 and unscaled: what scales them is the one
factor that exp2 needs anyway, so q is not rounded again.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels import tiles_tpu as tiles
from kernels.layout import pad
from kernels.mask import Limits, Rule
from kernels.tiles_tpu import Entry, Plan
from kernels.tpu import LANES, LOG2E, VMEM_BYTES, across, dot

HIDDEN = -1e30  # a masked score: finite, so that no row makes a NaN
PART = 256  # forward: rows in flight, beside the next ones' products
CHUNK = 1024, 512  # keys in flight, forward and backward

SLOTS = 3  # tiles of dq in VMEM: being read, summed into, written


def _unit(rule: Rule) -> float:
  """What the kernels' scores are multiples of, in nats; above 0."""
  if rule.softcap is not None:
    return rule.softcap
  return rule.scale if rule.scale > 0 else 1.0


def _scores(rule: Rule, s):
  """Returns scores over `_unit`, from raw ones, and tanh's slope, if any."""
  if rule.softcap is not None:
    bent = jnp.tanh(s * (rule.scale / rule.softcap))
    return bent, 1 - bent * bent
  return (s if rule.scale > 0 else s * rule.scale), None


def _visible(plan: Plan, entry: Entry, bounds, start, shape, ids, axis: int):
  """Returns a mask of `shape`, queries along `axis` and keys along the other.

  `start` is the first query and key within the tile. What runs along sublanes
  is made once and repeated over lanes, which leaves a comparison an element.
  """
  tall = jax.lax.broadcasted_iota(jnp.int32, (shape[0], LANES), 0)
  flat = jax.lax.broadcasted_iota(jnp.int32, (1, shape[1]), 1)
  q, k = (tall, flat) if axis == 0 else (flat, tall)
  q = q + (entry.i * plan.q + start[0] + bounds[1])
  k = k + (entry.j * plan.kv + start[1])

  def spread(x):
    x = x if x.shape[0] == 1 else jnp.tile(x, (1, shape[1] // LANES))
    return jnp.broadcast_to(x, shape)

  seen = []
  if plan.S % plan.kv:
    seen.append(spread(k) < plan.S)
  if plan.rule.causal:
    seen.append(spread(k) <= spread(q))
  if plan.window:
    seen.append(spread(k) > spread(q - bounds[0]))
  if ids is not None:
    seen.append(ids[0] == ids[1])
  return functools.reduce(jnp.logical_and, seen)


def _per_case(plan: Plan, entry: Entry, run) -> None:
  """Runs a live tile with a mask or without, whichever it needs."""
  if plan.masked:
    pl.when(entry.has(tiles.LIVE) & entry.has(tiles.EDGE))(lambda: run(True))
  pl.when(entry.has(tiles.LIVE) & ~entry.has(tiles.EDGE))(lambda: run(False))


# Forward ---------------------------------------------------------------------


class _Part(NamedTuple):
  """Rows of a tile and keys: `n` heads from g on, `q` queries from t on."""

  g: int
  n: int
  t: int
  q: int
  start: int  # of the keys
  keys: int


def _parts(plan: Plan) -> list[_Part]:
  """Cuts a tile, all parts of some keys before those of the next.

  Heads share a part only where it takes their rows whole: these follow on.
  """
  q = math.gcd(plan.q, PART)
  n = math.gcd(plan.G, PART // q) if q == plan.q else 1
  keys = math.gcd(plan.kv, CHUNK[0])
  return [
    _Part(g, n, t, q, start, keys)
    for start in range(0, plan.kv, keys)
    for g in range(0, plan.G, n)
    for t in range(0, plan.q, q)
  ]


def _forward_kernel(
  plan: Plan, table_ref, bounds_ref, q_ref, k_ref, v_ref, *xs
):
  """One tile: online softmax, rows in sublanes and keys in lanes."""
  qs_ref, ks_ref = xs[:2]  # without segments: others, and not touched
  o_ref, lse_ref, top_ref, sum_ref, acc_ref = xs[-5:]
  entry, bounds = tiles.here(plan, table_ref), tiles.bound(plan, bounds_ref)
  unit = _unit(plan.rule)

  @pl.when(entry.has(tiles.FIRST))
  def _():
    top_ref[...] = jnp.full(top_ref.shape, HIDDEN, jnp.float32)
    sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)
    acc_ref[...] = jnp.zeros(acc_ref.shape, jnp.float32)

  def hide(s, x: _Part):
    ids = None
    if plan.segments:
      wide = jnp.tile(qs_ref[pl.ds(x.t, x.q), :], (1, x.keys // LANES))
      ids = wide, ks_ref[:, pl.ds(x.start, x.keys)]
    at, shape = (x.t, x.start), (x.q, x.keys)
    seen = _visible(plan, entry, bounds, at, shape, ids, 0)
    seen = jnp.broadcast_to(seen[None], (x.n, *shape))
    s = jnp.where(seen, s.reshape(seen.shape), HIDDEN)
    return s.reshape(x.n * x.q, x.keys)

  def scores(x: _Part, masked):
    q = q_ref[pl.ds(x.g, x.n), pl.ds(x.t, x.q), :].reshape(x.n * x.q, plan.H)
    s = dot(q, k_ref[pl.ds(x.start, x.keys), :], (1, 1))
    s, _ = _scores(plan.rule, s)
    return hide(s, x) if masked else s

  def add(x: _Part, s):
    row = pl.ds(x.g * plan.q + x.t, x.n * x.q)
    old = top_ref[row, :]
    top = jnp.maximum(old, s.max(1, keepdims=True))
    wide = jnp.tile(top, (1, x.keys // LANES))
    p = jnp.exp2((s - wide) * (unit * LOG2E))
    shrink = jnp.exp2((old - top) * (unit * LOG2E))
    top_ref[row, :] = top
    sum_ref[row, :] = shrink * sum_ref[row, :] + p.sum(1, keepdims=True)
    v = v_ref[pl.ds(x.start, x.keys), :]
    new = dot(p.astype(v.dtype), v, (1, 0))
    acc_ref[row, :] = across(shrink, plan.H) * acc_ref[row, :] + new

  def run(masked):
    # A part's scores are asked for before the last part's softmax, in program
    # order, for the compiler to run the MXU beside the vector units.
    ahead, *parts = _parts(plan)
    s = scores(ahead, masked)
    for part in parts:
      following = scores(part, masked)
      add(ahead, s)
      ahead, s = part, following
    add(ahead, s)

  _per_case(plan, entry, run)

  @pl.when(entry.has(tiles.LAST))
  def _():
    # A row that saw nothing has kept HIDDEN, whatever it has summed.
    top, total = top_ref[...], sum_ref[...]
    part = jnp.where(top > HIDDEN / 2, 1 / total, 0)
    o = (acc_ref[...] * across(part, plan.H)).astype(o_ref.dtype)
    o_ref[...] = o.reshape(o_ref.shape)
    # Both statistics, the same in all lanes, turn into lanes by one transpose.
    half = jax.lax.broadcasted_iota(jnp.int32, top.shape, 1) < LANES // 2
    both = jnp.where(half, top, total).T
    top, total = both[:1], both[LANES // 2 : LANES // 2 + 1]
    lse = top * unit + jnp.log(total)
    lse = jnp.where(top > HIDDEN / 2, lse, -jnp.inf)
    for g in range(plan.G):
      lse_ref[g : g + 1, :] = lse[:, g * plan.q : (g + 1) * plan.q]


def _segments(plan: Plan, limits: Limits, back: bool) -> tuple[list, list]:
  """Returns the specs and values of segments; those in sublanes replicated."""
  if limits.q_segments_BT is None or limits.kv_segments_BS is None:
    return [], []
  q_BT = pad(limits.q_segments_BT, 1, plan.q, mode="edge")
  k_BS = pad(limits.kv_segments_BS, 1, plan.kv, mode="edge")
  tall = lambda x: jnp.broadcast_to(x[:, :, None], (*x.shape, LANES))
  if back:
    q_spec = tiles.block(plan, (None, 1, plan.q), "b0i")
    k_spec = tiles.block(plan, (None, plan.kv, LANES), "bj0")
    return [q_spec, k_spec], [q_BT[:, None], tall(k_BS)]
  q_spec = tiles.block(plan, (None, plan.q, LANES), "bi0")
  k_spec = tiles.block(plan, (None, 1, plan.kv), "b0j")
  return [q_spec, k_spec], [tall(q_BT), k_BS[:, None]]


def _call(
  plan: Plan, kernel, steps: Any, name: str, interpret: Any, **grid: Any
):
  """A pallas_call over the listed tiles, with what they cost."""
  listed = steps if isinstance(steps, int) else math.prod(plan.tiles)
  pairs = plan.B * plan.K * listed * plan.G * plan.q * plan.kv
  back = name == "flash_backward"
  size = plan.B * plan.K * plan.H * plan.dtype.itemsize
  moved = 2 * listed * plan.kv + (6 if back else 2) * plan.G * plan.T
  out_shape = grid.pop("out_shape")
  return pl.pallas_call(
    functools.partial(kernel, plan),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2, grid=(plan.B * plan.K, steps), **grid
    ),
    out_shape=out_shape,
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=VMEM_BYTES,
    ),
    cost_estimate=pl.CostEstimate(
      flops=(10 if back else 4) * pairs * plan.H,
      transcendentals=pairs,
      bytes_accessed=size * moved,
    ),
    name=name,
    interpret=interpret,
  )


def forward(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  rule: Rule,
  limits: Limits,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BTKGH in q's dtype, lse_BTKG in fp32 and nats).

  A row that sees no key has o = 0 and lse = -inf. `interpret` is that of
  `pl.pallas_call`.
  """
  plan = tiles.choose(q_BTKGH, k_BSKH, rule, limits, back=False)
  table, steps = tiles.listed(plan, limits, back=False)
  specs, ids = _segments(plan, limits, back=False)
  heads = tiles.block(plan, (None, plan.G, plan.q, plan.H), "h0i0")
  keys = tiles.block(plan, (None, plan.kv, plan.H), "hj0")
  line = tiles.block(plan, (None, plan.G, plan.q), "h0i")
  q_bGTH = tiles.head_major(plan, q_BTKGH)
  rows = plan.G * plan.q
  o_bGTH, lse_bGT = _call(
    plan,
    _forward_kernel,
    steps,
    "flash_forward",
    interpret,
    in_specs=[heads, keys, keys, *specs],
    out_specs=[heads, line],
    scratch_shapes=[
      pltpu.VMEM((rows, LANES), jnp.float32),
      pltpu.VMEM((rows, LANES), jnp.float32),
      pltpu.VMEM((rows, plan.H), jnp.float32),
    ],
    out_shape=[
      jax.ShapeDtypeStruct(q_bGTH.shape, q_BTKGH.dtype),
      jax.ShapeDtypeStruct(q_bGTH.shape[:-1], jnp.float32),
    ],
  )(
    jnp.asarray(table).reshape(-1),
    tiles.bounds(plan, limits),
    q_bGTH,
    tiles.head_major_keys(plan, k_BSKH),
    tiles.head_major_keys(plan, v_BSKH),
    *ids,
  )
  return tiles.token_major(plan, o_bGTH), tiles.token_major(plan, lse_bGT)


# Backward --------------------------------------------------------------------


class _Running(NamedTuple):
  """dq in HBM, read, summed into and written back a tile at a time.

  The tile of the next step is read while this one computes, the last one's is
  still being written: three slots. `turn` holds this tile's slot; `wet` says
  which slots are being written, and `tile` with which block.
  """

  dq_hbm: Any
  slots: Any
  reads: Any
  writes: Any
  state: Any  # SMEM: turn, then wet and tile for each slot
  plan: Plan
  at: tuple[Any, Any]  # where in the grid

  def place(self, i: Any) -> Any:
    """The block's rows of dq in HBM."""
    return self.dq_hbm.at[self.at[0], :, pl.ds(i * self.plan.q, self.plan.q), :]

  def read(self, slot: Any, i: Any) -> Any:
    """The copy of block i into a slot."""
    return pltpu.make_async_copy(
      self.place(i), self.slots.at[slot], self.reads.at[slot]
    )

  def write(self, slot: Any, i: Any) -> Any:
    """The copy of a slot to block i."""
    return pltpu.make_async_copy(
      self.slots.at[slot], self.place(i), self.writes.at[slot]
    )

  def settle(self, slot: Any, when: Any = True) -> None:
    """Waits until a slot's write has landed, if there is one."""

    @pl.when((self.state[1 + slot] != 0) & when)
    def _():
      self.write(slot, self.state[1 + SLOTS + slot]).wait()
      self.state[1 + slot] = 0

  def enter(self, entry: Entry, after: Entry) -> Any:
    """Makes this tile's slot ready, starts the next read; returns the slot."""

    @pl.when(self.at[1] == 0)
    def _():
      for x in range(1 + SLOTS):
        self.state[x] = 0

    @pl.when(~entry.has(tiles.CARRY))
    def _():
      self.state[0] = jax.lax.rem(self.state[0] + 1, SLOTS)

    turn = self.state[0]
    next_turn = jax.lax.rem(turn + 1, SLOTS)

    @pl.when(~after.has(tiles.CARRY) & ~after.has(tiles.FRESH))
    def _():
      # A block that is still on its way out must not be read yet.
      for x in range(SLOTS):
        late = self.state[1 + SLOTS + x] == after.i
        self.settle(x, late | (next_turn == x))
      self.read(next_turn, after.i).start()

    @pl.when(~entry.has(tiles.CARRY) & entry.has(tiles.FRESH))
    def _():
      self.settle(turn)
      self.slots[turn] = jnp.zeros(self.slots.shape[1:], jnp.float32)

    @pl.when(~entry.has(tiles.CARRY) & ~entry.has(tiles.FRESH))
    def _():
      self.read(turn, entry.i).wait()

    return turn

  def leave(self, entry: Entry, turn: Any) -> None:
    """Writes the tile back, unless the next step goes on with it."""

    @pl.when(~entry.has(tiles.KEEP))
    def _():
      self.write(turn, entry.i).start()
      self.state[1 + turn] = 1
      self.state[1 + SLOTS + turn] = entry.i

    @pl.when(entry.has(tiles.END))
    def _():
      for x in range(SLOTS):
        self.settle(x)


def _backward_kernel(plan: Plan, table_ref, bounds_ref, *xs):
  """One tile of all three gradients: keys in sublanes, rows in lanes."""
  q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref = xs[:6]
  qs_ref, ks_ref = xs[6:8]  # without segments: others, and not touched
  dq_hbm, dk_ref, dv_ref, dk_acc, dv_acc, slots, reads, writes, state = xs[-9:]
  entry, bounds = tiles.here(plan, table_ref), tiles.bound(plan, bounds_ref)
  at = pl.program_id(0), pl.program_id(1)
  dq = _Running(dq_hbm, slots, reads, writes, state, plan, at)
  rows, chunk = plan.G * plan.q, math.gcd(plan.kv, CHUNK[1])
  factor = _unit(plan.rule) * LOG2E

  def line(ref):
    return jnp.concatenate([ref[g : g + 1, :] for g in range(plan.G)], 1)

  def hide(p, start):
    ids = None
    if plan.segments:
      wide = jnp.tile(ks_ref[pl.ds(start, chunk), :], (1, plan.q // LANES))
      ids = qs_ref[...], wide
    shape = chunk, plan.q
    seen = _visible(plan, entry, bounds, (0, start), shape, ids, 1)
    return jnp.where(jnp.tile(seen, (1, plan.G)), p, 0)

  def run(masked, turn):
    q = q_ref[...].reshape(rows, plan.H)
    do = do_ref[...].reshape(rows, plan.H)
    lse, delta = line(lse_ref), line(delta_ref)
    for start in range(0, plan.kv, chunk):
      keys = pl.ds(start, chunk)
      k, v = k_ref[keys, :], v_ref[keys, :]
      s, slope = _scores(plan.rule, dot(k, q, (1, 1)))
      p = jnp.exp2((s - lse) * factor)
      p = hide(p, start) if masked else p
      dv_acc[keys, :] += dot(p.astype(do.dtype), do, (1, 0))
      ds = p * (dot(v, do, (1, 1)) - delta)
      ds = ds if slope is None else ds * slope
      ds = ds.astype(q.dtype)
      dk_acc[keys, :] += dot(ds, q, (1, 0))
      new = dot(ds, k, (0, 0))
      slots[turn] += new.reshape(plan.G, plan.q, plan.H)

  @pl.when(entry.has(tiles.FIRST))
  def _():
    dk_acc[...] = jnp.zeros(dk_acc.shape, jnp.float32)
    dv_acc[...] = jnp.zeros(dv_acc.shape, jnp.float32)

  turn = dq.enter(entry, tiles.here(plan, table_ref, 1))
  _per_case(plan, entry, lambda masked: run(masked, turn))
  dq.leave(entry, turn)

  @pl.when(entry.has(tiles.LAST))
  def _():
    dk_ref[...] = (dk_acc[...] * plan.rule.scale).astype(dk_ref.dtype)
    dv_ref[...] = dv_acc[...].astype(dv_ref.dtype)


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
  """Returns (dq_BTKGH, dk_BSKH, dv_BSKH), each in its input's dtype.

  `delta` is sum_H(do * o) - dlse. One kernel makes all three, so that scores
  are computed once: dk and dv are summed in VMEM, dq in one fp32 array in HBM.
  """
  plan = tiles.choose(q_BTKGH, k_BSKH, rule, limits, back=True)
  table, steps = tiles.listed(plan, limits, back=True)
  specs, ids = _segments(plan, limits, back=True)
  heads = tiles.block(plan, (None, plan.G, plan.q, plan.H), "h0i0")
  keys = tiles.block(plan, (None, plan.kv, plan.H), "hj0")
  line = tiles.block(plan, (None, plan.G, plan.q), "h0i")
  major, major_keys = tiles.head_major, tiles.head_major_keys
  q_bGTH, k_bSH = major(plan, q_BTKGH), major_keys(plan, k_BSKH)
  # A row that sees nothing, or is padding, weighs 0.
  lse_BTKG = lse_BTKG * (1 / _unit(rule))
  lse_BTKG = jnp.where(jnp.isneginf(lse_BTKG), -HIDDEN, lse_BTKG)
  accumulator = pltpu.VMEM((plan.kv, plan.H), jnp.float32)
  dq_bGTH, dk_bSH, dv_bSH = _call(
    plan,
    _backward_kernel,
    steps,
    "flash_backward",
    interpret,
    in_specs=[heads, keys, keys, heads, line, line, *specs],
    out_specs=[pl.BlockSpec(memory_space=pl.ANY), keys, keys],
    scratch_shapes=[
      accumulator,
      accumulator,
      pltpu.VMEM((SLOTS, plan.G, plan.q, plan.H), jnp.float32),
      pltpu.SemaphoreType.DMA((SLOTS,)),
      pltpu.SemaphoreType.DMA((SLOTS,)),
      pltpu.SMEM((1 + 2 * SLOTS,), jnp.int32),
    ],
    out_shape=[
      jax.ShapeDtypeStruct(q_bGTH.shape, jnp.float32),
      jax.ShapeDtypeStruct(k_bSH.shape, k_BSKH.dtype),
      jax.ShapeDtypeStruct(k_bSH.shape, v_BSKH.dtype),
    ],
  )(
    jnp.asarray(table).reshape(-1),
    tiles.bounds(plan, limits),
    q_bGTH,
    k_bSH,
    major_keys(plan, v_BSKH),
    major(plan, do_BTKGH),
    major(plan, lse_BTKG, constant_values=-HIDDEN),
    major(plan, delta_BTKG),
    *ids,
  )
  dq_bGTH = (dq_bGTH * rule.scale).astype(q_BTKGH.dtype)
  dk_BSKH = tiles.token_major_keys(plan, dk_bSH)
  return (
    tiles.token_major(plan, dq_bGTH),
    dk_BSKH,
    tiles.token_major_keys(plan, dv_bSH),
  )
