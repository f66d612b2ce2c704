"""What the Hopper (sm_90a) kernels share: tiles, walks, products, masks.

Which blocks a tile walks, and which of them need a mask, are loop bounds:
[low, full_low) masked, [full_low, full_high) whole, [full_high, high) masked.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import mask
from kernels.mask import Limits, Rule

LOG2E = math.log2(math.e)
ROWS = 64  # of one warpgroup: wgmma's M
FLOOR = -1e30  # a running maximum that any finite score exceeds
ROW = plgpu.Layout.WGMMA.reduce(1)
COLUMN = plgpu.Layout.WGMMA.reduce(0)


class Plan(NamedTuple):
  """A kernel's shape: warpgroups of 64 rows, walked block, stages of TMA."""

  groups: int
  block: int
  stages: int

  @property
  def tile(self) -> int:
    """Rows of one program."""
    return ROWS * self.groups


def plan_of(kind: str, H: int, rule: Rule, limits: Limits) -> Plan:
  """Returns the plan for padded head width H; `rule.blocks` overrides it."""
  row = {64: 0, 128: 1}.get(H, 2)
  plan = {
    "forward": (Plan(3, 128, 2), Plan(2, 128, 2), Plan(2, 64, 2)),
    "dq": (Plan(2, 64, 3), Plan(2, 64, 2), Plan(1, 64, 2)),
    "dkv": (Plan(2, 64, 3), Plan(2, 64, 2), Plan(1, 64, 2)),
  }[kind][row]
  if rule.blocks is None:
    # Three warpgroups have 160 registers each: too few for segments.
    few = plan.groups == 3 and limits.q_segments_BT is not None
    return plan._replace(groups=2) if few else plan
  kept, walked = {
    "forward": (rule.blocks.q, rule.blocks.kv),
    "dq": (rule.blocks.q_backward, rule.blocks.kv_backward),
    "dkv": (rule.blocks.kv_backward, rule.blocks.q_backward),
  }[kind]
  groups = min(3, max(1, kept // ROWS))
  return Plan(groups, max(64, walked // 64 * 64), plan.stages)


def _floor(x: Any, block: int) -> Any:
  return lax.div(jnp.int32(x), jnp.int32(block))


def _nest(low: Any, full_low: Any, full_high: Any, high: Any) -> tuple:
  """Orders the four bounds, so that each range may be empty."""
  high = jnp.maximum(high, low)
  full_low = jnp.clip(full_low, low, high)
  return low, full_low, jnp.clip(full_high, full_low, high), high


def _kv_bounds(
  tile: Any, size: int, block: int, rule: Rule, window: Any, offset: Any,
  T: int, S: int,
) -> tuple:  # fmt: skip
  """Returns the four bounds, in blocks of keys, for one tile of queries."""
  first = tile * size
  last = jnp.minimum(first + size, T) - 1
  low, high = mask.kv_range(first, last, window, offset, rule.causal, S)
  seen_to = jnp.clip(first + offset + 1, 0, S) if rule.causal else S
  seen_from = (
    0 if window is None else jnp.maximum(last + offset - window + 1, 0)
  )
  return _nest(
    _floor(low, block),
    _floor(seen_from + block - 1, block),
    _floor(seen_to, block),
    _floor(high + block - 1, block),
  )


def _q_bounds(
  tile: Any, size: int, block: int, rule: Rule, window: Any, offset: Any,
  T: int, S: int,
) -> tuple:  # fmt: skip
  """Returns the four bounds, in blocks of queries, for one tile of keys."""
  first = tile * size
  last = jnp.minimum(first + size, S) - 1
  low, high = mask.q_range(first, last, window, offset, rule.causal, T)
  seen_from = jnp.maximum(last - offset, 0) if rule.causal else 0
  seen_to = T + block  # queries past T have p = 0 without a mask
  if window is not None:
    seen_to = jnp.clip(first - offset + window, 0, T + block)
  return _nest(
    _floor(low, block),
    _floor(seen_from + block - 1, block),
    _floor(seen_to, block),
    _floor(high + block - 1, block),
  )


def _extent(segments_BT: jax.Array, block: int, n: int) -> tuple:
  """Returns the smallest and largest segment of each of n blocks, [B, n]."""
  short = n * block - segments_BT.shape[1]
  x = jnp.pad(segments_BT, [(0, 0), (0, max(short, 0))], mode="edge")
  x = x[:, : n * block].reshape(-1, n, block)
  return x.min(-1), x.max(-1)


def _narrow(bounds: tuple, kept: tuple, walked: tuple) -> tuple:
  """Narrows bounds [B, n] to blocks whose ranges of segments meet.

  Where segments are not sorted, the hull of the meeting blocks is walked, and
  the first run of blocks that lie whole in the tile's segment goes unmasked.
  """
  low, full_low, full_high, high = (x[..., None] for x in bounds)
  least, most = (x[:, :, None] for x in kept)
  other_least, other_most = (x[:, None, :] for x in walked)
  n = other_least.shape[-1]
  at = jnp.arange(n)[None, None, :]
  meet = (least <= other_most) & (other_least <= most)
  meet &= (at >= low) & (at < high)
  some = meet.any(-1)
  new_low = jnp.where(some, meet.argmax(-1), 0)
  new_high = jnp.where(some, n - meet[..., ::-1].argmax(-1), 0)
  same = (least == most) & (other_least == other_most) & (least == other_least)
  same &= (at >= full_low) & (at < full_high)
  start = same.argmax(-1)
  over = (at > start[..., None]) & ~same
  end = jnp.where(over.any(-1), over.argmax(-1), n)
  end = jnp.where(same.any(-1), end, start)
  return _nest(new_low, start, end, new_high)


class Walk(NamedTuple):
  """How a kernel finds the bounds of a tile: computed there, or read."""

  bounds: Callable
  size: int
  block: int
  rule: Rule
  T: int
  S: int
  table: bool

  def of(self, tile: Any, table: Any, batch: Any) -> tuple:
    """Returns (four bounds, window, q_offset) inside of a kernel."""
    if self.table:
      x = [table[batch, tile, i] for i in range(6)]
      traced = self.rule.window is not None
      return tuple(x[:4]), x[4] if traced else None, x[5]
    window, offset = self.rule.window, self.rule.q_offset
    sizes = (self.size, self.block, self.rule, window, offset, self.T, self.S)
    return self.bounds(tile, *sizes), window, offset


def walk_of(
  kind: str, plan: Plan, rule: Rule, limits: Limits, B: int, T: int, S: int
) -> tuple[Walk, list[jax.Array]]:
  """Returns the walk and its table int32 [B, tiles, 6], if it needs one."""
  bounds = _q_bounds if kind == "dkv" else _kv_bounds
  kept, walked = (S, T) if kind == "dkv" else (T, S)
  q_BT, kv_BS = limits.q_segments_BT, limits.kv_segments_BS
  segments = q_BT is not None
  traced = limits.window_B is not None or limits.q_offset_B is not None
  if limits.window_B is not None:
    rule = dataclasses.replace(rule, window=0)  # its value is in the table
  walk = Walk(
    bounds, plan.tile, plan.block, rule, T, S, table=segments or traced
  )
  if not walk.table:
    return walk, []
  tiles, blocks = pl.cdiv(kept, plan.tile), pl.cdiv(walked, plan.block)
  tile_1t = jnp.arange(tiles, dtype=jnp.int32)[None]
  column = lambda x: jnp.broadcast_to(jnp.int32(x).reshape(-1, 1), (B, 1))
  window_B1 = column(0 if rule.window is None else mask.window_of(rule, limits))
  offset_B1 = column(mask.q_offset_of(rule, limits))
  tile_Bt = jnp.broadcast_to(tile_1t, (B, tiles))
  window_Bt, offset_Bt = (
    jnp.broadcast_to(x, (B, tiles)) for x in (window_B1, offset_B1)
  )
  found = bounds(
    tile_Bt, plan.tile, plan.block, rule,
    None if rule.window is None else window_Bt, offset_Bt, T, S,
  )  # fmt: skip
  found = tuple(jnp.broadcast_to(x, (B, tiles)) for x in found)
  if q_BT is not None and kv_BS is not None:
    mine, theirs = (kv_BS, q_BT) if kind == "dkv" else (q_BT, kv_BS)
    found = _narrow(
      found,
      _extent(mine, plan.tile, tiles),
      _extent(theirs, plan.block, blocks),
    )
  return walk, [jnp.stack([*found, window_Bt, offset_Bt], -1).astype(jnp.int32)]


def smem(shape: tuple[int, ...], dtype: Any) -> Any:
  """Shared memory in the tiles of 8 x 64 that wgmma and TMA agree on."""
  width = min(64, shape[-1])
  span = width * jnp.dtype(dtype).itemsize
  swizzle = plgpu.SwizzleTransform(span)  # pyright: ignore[reportAbstractUsage]
  tiles = plgpu.TilingTransform((8, width))  # pyright: ignore[reportAbstractUsage]
  return plgpu.SMEM(shape, dtype, transforms=(tiles, swizzle))


def place(x: jax.Array, interpret: Any) -> jax.Array:
  """Places an accumulator, or a row of it, as wgmma leaves it."""
  if interpret:
    return x
  return plgpu.layout_cast(x, plgpu.Layout.WGMMA if x.ndim == 2 else ROW)


def across(x: jax.Array, shape: tuple[int, int], axis: int) -> jax.Array:
  """Repeats x along the other axis; `axis` is the one that x has."""
  return lax.broadcast_in_dim(x, shape, [axis])


def product(a: Any, b: Any) -> jax.Array:
  """Returns a b in fp32, of two references to shared memory."""

  def multiply(acc):
    plgpu.wgmma(acc, a, b)
    return acc[...]

  shape = (a.shape[0], b.shape[1])
  return pl.run_scoped(multiply, plgpu.WGMMAAccumulatorRef(shape, jnp.float32))


def two_products(first: tuple, second: tuple, use: Callable) -> tuple:
  """Returns (use(a b), c d); `use` runs while c d is still being multiplied."""

  def multiply(one, two):
    plgpu.wgmma(one, *first)
    plgpu.wgmma(two, *second)
    used = use(plgpu.wgmma_accumulator_load(one, wait_n=1))
    return used, two[...]

  refs = [
    plgpu.WGMMAAccumulatorRef((a.shape[0], b.shape[1]), jnp.float32)
    for a, b in (first, second)
  ]
  return pl.run_scoped(multiply, *refs)


def add_products(sums: tuple, pairs: list[tuple], scratch: Any) -> tuple:
  """Returns sums[i] + a b for each pair (a, b), `a` from registers.

  The interpreter knows no such wgmma: given a scratch, `a` goes through it.
  """
  if scratch is None:

    def multiply(accs):
      for acc, pair in zip(accs, pairs, strict=True):
        plgpu.wgmma(acc, *pair)

    return pl.run_state(multiply)(
      tuple(map(plgpu.WGMMAAccumulatorRef.init, sums))
    )
  new = []
  for x, (a, b) in zip(sums, pairs, strict=True):
    scratch[...] = a
    plgpu.commit_smem()
    new.append(x + product(scratch, b))
  return tuple(new)


def load_ids(ref: Any, layout: Any) -> jax.Array:
  """Reads segments straight from global memory: edge blocks are few."""
  return plgpu.load(ref, layout=layout, optimized=False)


def _tanh(x: jax.Array) -> jax.Array:
  """tanh by exp2: the approximate instruction is off by 2**-11."""
  r = lax.rsqrt(1 + jnp.exp2(x * (2 * LOG2E)))
  return 1 - 2 * r * r


def scores_of(s: jax.Array, rule: Rule) -> tuple[jax.Array, float, Any]:
  """Returns (s', c, t): s' c are the scores over log 2; t is softcap's tanh.

  The factor c >= 0 is left to fuse into what follows.
  """
  if rule.softcap is not None:
    t = _tanh(s * (rule.scale / rule.softcap))
    return t, rule.softcap * LOG2E, t
  if rule.scale < 0:
    return -s, -rule.scale * LOG2E, None
  return s, rule.scale * LOG2E, None


def pairs_seen(
  shape: tuple[int, int], q_axis: int, q_at: Any, k_at: Any, walk: Walk,
  window: Any, offset: Any, segments: tuple | None,
) -> Any:  # fmt: skip
  """Returns which pairs of a block see each other; q_at, k_at: its corner."""
  iota = lambda axis: plgpu.broadcasted_iota(
    jnp.int32, (shape[axis],), 0, layout=(ROW, COLUMN)[axis]
  )
  wide_q = lambda x: across(x, shape, q_axis)
  wide_k = lambda x: across(x, shape, 1 - q_axis)
  q, k = iota(q_axis), iota(1 - q_axis)
  parts = []
  if q_axis == 0 and walk.S % walk.block:  # where keys stay, the rows are cut
    parts.append(wide_k(k < walk.S - k_at))
  # A thread has few rows and many columns. What changes from block to block
  # goes to the columns and what does not to the rows: so no column of values
  # is constant, which the compiler would hold in registers over the loop.
  shift = k_at - q_at - offset
  q, k = (q, k + shift) if q_axis == 0 else (q - shift, k)
  if walk.rule.causal:
    parts.append(mask.inside(wide_q(q), wide_k(k), True, None))
  if window is not None:
    q, k = (q - window, k) if q_axis == 0 else (q, k + window)
    parts.append(mask.inside(wide_q(q), wide_k(k), False, 0))
  if segments is not None:
    parts.append(segments[0] == segments[1])
  return functools.reduce(jnp.logical_and, parts) if parts else None


def block_at(bounds: tuple, step: Any) -> Any:
  """Returns the block that is walked at a step: first whole ones, then edges.

  The edges of both ends share one loop, since each copy of its body costs
  registers and instructions.
  """
  low, full_low, full_high, _ = bounds
  whole = full_high - full_low
  edge = low + step - jnp.where(step < full_high - low, whole, 0)
  return jnp.where(step < whole, full_low + step, edge)


def walk_blocks(bounds: tuple, body: Callable, carry: Any) -> Any:
  """Runs body(step, carry, masked) over all steps."""
  whole, steps = bounds[2] - bounds[1], bounds[3] - bounds[0]
  carry = lax.fori_loop(0, whole, lambda i, c: body(i, c, False), carry)
  return lax.fori_loop(whole, steps, lambda i, c: body(i, c, True), carry)


def again(x: Any, interpret: Any) -> Any:
  """Returns x such that the compiler derives from it anew.

  What it would derive once and for all, before a loop, costs registers there.
  """
  return x if interpret else lax.optimization_barrier(x)


def check_width(H: int) -> None:
  """Raises ValueError where heads are wider than the registers hold."""
  if H > 256:
    raise ValueError(f"H is {H}: impl='hopper' takes 256 at most")


def _interpreter(interpret: Any) -> Any:
  return plgpu.InterpretGPUParams() if interpret is True else interpret or None


def launch(
  body: Callable,
  plan: Plan,
  out: Any,
  scratch: tuple,
  grid: tuple,
  interpret: Any,
) -> Callable:
  """Returns the kernel over grid (tile, batch, head), the last one fastest."""
  return plgpu.kernel(
    body, out_type=out, scratch_types=scratch, grid=grid,
    grid_names=("tile", "batch", "head"), num_threads=plan.groups + 1,
    thread_name="group", interpret=_interpreter(interpret),
    compiler_params=plgpu.CompilerParams(approx_math=True),
  )  # fmt: skip


def registers_of(plan: Plan) -> tuple[int, int]:
  """Registers of a multiplying and of the copying warpgroup; 512 in all."""
  return {1: (256, 40), 2: (240, 24), 3: (160, 32)}[plan.groups]


def run_copier(
  plan: Plan, group: Any, count: Any, fetch: Callable, free: tuple
) -> None:
  """Runs the copying warpgroup: fetch(step, slot) as soon as a slot is free."""

  @pl.when(group == plan.groups)
  def _():
    plgpu.set_max_registers(registers_of(plan)[1], action="decrease")

    # The last steps only wait, so that no barrier ends unobserved.
    @pl.loop(jnp.int32(0), count + plan.stages)
    def _(i):
      slot = lax.rem(i, jnp.int32(plan.stages))

      @pl.when(i >= plan.stages)
      def _():
        for barrier in free:
          plgpu.barrier_wait(barrier.at[slot])

      pl.when(i < count)(lambda: fetch(i, slot))


def split_refs(refs: Any, tables: int, segments: int) -> tuple:
  """Returns (table or None, both segments or None, the other refs)."""
  table = refs[0] if tables else None
  pair = refs[tables : tables + segments] or (None, None)
  return table, *pair, refs[tables + segments :]


def pad_segments(limits: Limits, T: int, S: int) -> list[jax.Array]:
  """Returns the segments of both sides as int32, padded to T and S, or []."""
  if limits.q_segments_BT is None or limits.kv_segments_BS is None:
    return []
  q_BT, kv_BS = limits.q_segments_BT, limits.kv_segments_BS
  fill = lambda x, n: jnp.pad(
    x.astype(jnp.int32), [(0, 0), (0, n - x.shape[1])]
  )
  return [fill(q_BT, T), fill(kv_BS, S)]
