"""Decoding's attention on Hopper (sm_90a): FlashDecoding in Pallas Mosaic GPU.

A program owns one split of the keys of one row and one KV head. Its second
warpgroup copies keys and values (TMA) through a ring of shared-memory stages,
the first keeps the head's G queries, padded to wgmma's 64 rows, and the running
softmax in registers: the tensor cores have nothing better to do. There are
enough splits to give every SM two programs' work.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import hopper
from kernels.layout import pad
from kernels.mask import Rule
from kernels.softmax import join
from kernels.splits import bounds

SMS = 132  # of an H100 or H200
SHORTEST = 256  # keys of a split worth a program
TILE = 8  # tokens: where TMA may start to read a swizzled block


def takes(q_BKGH: jax.Array) -> bool:
  """Says if there is a kernel for such heads; `decode` raises if not."""
  G, H = q_BKGH.shape[2:]
  return G <= hopper.ROWS and H <= 256


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

  XLA copies the cache first where H is no multiple of 64, S no multiple of 8 or
  less than a block. `interpret` is False, True or InterpretGPUParams: a variant
  for the CPU, with P in shared memory.

  Raises:
    ValueError: H > 256, or more than 64 query heads share a KV head.
  """
  hopper.check_width(q_BKGH.shape[-1])
  B, K, G, H = q_BKGH.shape
  if G > hopper.ROWS:
    raise ValueError(f"q_BKGH is {q_BKGH.shape}: impl='hopper' takes G <= 64")
  wide = lambda x: pad(x, x.ndim - 1, 64)
  q = pad(wide(q_BKGH), 2, hopper.ROWS)
  plan = _plan(q.shape[-1])
  k, v = wide(k_BSKH), wide(v_BSKH)
  whole = TILE if k.shape[1] > plan.block else plan.block
  k, v = (pad(x, 1, whole) for x in (k, v))
  if splits is None:
    splits = max(1, min(2 * SMS // (B * K), k.shape[1] // SHORTEST))
  table = jnp.stack(bounds(first_B, end_B, splits, plan.block), -1)
  rule = Rule(False, scale, softcap)
  o, lse = _call(plan, rule, G, q, k, v, table, interpret)
  o_BKGH, lse_BKG = join(o[:, :, :, :G, :H], lse[:, :, :, :G])
  return o_BKGH.astype(q_BKGH.dtype), lse_BKG


def _plan(H: int) -> hopper.Plan:
  """One warpgroup; 128 KB of keys and values on their way."""
  return hopper.Plan(1, max(64, 128 * 64 // H), 4 if H <= 128 else 2)


def _wide(shape: tuple[int, int]) -> Any:
  """Shared memory for fp32 in tiles that the accumulator and TMA agree on."""
  swizzle = plgpu.SwizzleTransform(128)  # pyright: ignore[reportAbstractUsage]
  tiles = plgpu.TilingTransform((8, 32))  # pyright: ignore[reportAbstractUsage]
  return plgpu.SMEM(shape, jnp.float32, transforms=(tiles, swizzle))


def _call(plan, rule: Rule, G: int, q, k, v, table, interpret):
  """Returns o [splits, B, K, rows, H] and lse [splits, B, K, rows], fp32.

  `table` holds [first, end) of each split of each row, int32 [splits, B, 2].
  """
  B, K, _, H = q.shape
  splits = table.shape[0]
  rows = G + -G % 8
  scratch = (
    hopper.smem((hopper.ROWS, H), q.dtype),
    hopper.smem((plan.stages, plan.block, H), k.dtype),
    hopper.smem((plan.stages, plan.block, H), k.dtype),
    _wide((hopper.ROWS, min(H, 64 if H % 128 else 128))),
    plgpu.SMEM((hopper.ROWS,), jnp.float32),
    hopper.smem((hopper.ROWS, plan.block), k.dtype) if interpret else None,
    plgpu.Barrier(),
    plgpu.Barrier(num_barriers=plan.stages),
    plgpu.Barrier(num_barriers=plan.stages),
    plgpu.Barrier(num_barriers=plan.stages),
    plgpu.Barrier(num_barriers=plan.stages),
  )
  out = [
    jax.ShapeDtypeStruct((splits, B, K, rows, H), jnp.float32),
    jax.ShapeDtypeStruct((splits, B, K, rows), jnp.float32),
  ]
  body = functools.partial(_body, plan, rule, rows, interpret)
  grid = splits, B, K
  return hopper.launch(body, plan, out, scratch, grid, interpret)(
    q, k, v, table
  )


def _body(plan, rule: Rule, rows: int, interpret: Any, *refs):
  """One split of one row and one KV head."""
  q_hbm, k_hbm, v_hbm, table, o_hbm, lse_hbm, *scratch = refs
  q, ks, vs, o, lse, ps, q_in, k_in, v_in, k_free, v_free = scratch
  group, split = lax.axis_index("group"), lax.axis_index("tile")
  batch, head = lax.axis_index("batch"), lax.axis_index("head")
  first, end = table[split, batch, 0], table[split, batch, 1]
  block, S = plan.block, k_hbm.shape[1]
  tile = lax.div(first, jnp.int32(TILE))
  steps = lax.div(end - tile * TILE + block - 1, jnp.int32(block))
  steps = jnp.where(first < end, steps, 0)

  def start(i):  # the last block may overlap the one before
    last = jnp.minimum(tile + i * (block // TILE), (S - block) // TILE)
    return last * TILE

  def fetch(i, slot):
    at = batch, pl.ds(start(i), block), head
    plgpu.copy_gmem_to_smem(k_hbm.at[at], ks.at[slot], k_in.at[slot])
    plgpu.copy_gmem_to_smem(v_hbm.at[at], vs.at[slot], v_in.at[slot])

  hopper.run_copier(plan, group, steps, fetch, (k_free, v_free))

  @pl.when(group == 0)
  def _():
    plgpu.set_max_registers(hopper.registers_of(plan)[0], action="increase")
    plgpu.copy_gmem_to_smem(q_hbm.at[batch, head], q, q_in)
    plgpu.barrier_wait(q_in)

    def step(i, carry):
      slot = lax.rem(i, jnp.int32(plan.stages))
      low = jnp.maximum(first, tile * TILE + i * block) - start(i)
      high = end - start(i)
      refs = (q, ks.at[slot], vs.at[slot], ps)
      barriers = tuple(x.at[slot] for x in (k_in, v_in, k_free, v_free))
      return _attend(rule, refs, barriers, (low, high), carry, interpret)

    make = lambda x, *s: hopper.place(
      jnp.full((hopper.ROWS, *s), x, jnp.float32), interpret
    )
    carry = make(0.0, q.shape[-1]), make(hopper.FLOOR), make(0.0)
    acc, m, l = lax.fori_loop(0, steps, step, carry)
    some = l > 0
    l = jnp.where(some, l, 1.0)
    acc = acc * hopper.across(1 / l, acc.shape, 0)
    lse[...] = jnp.where(some, m / hopper.LOG2E + jnp.log(l), -jnp.inf)
    to, own = (split, batch, head), pl.ds(0, rows)
    for i in range(0, acc.shape[1], o.shape[1]):  # no room for 256 in fp32
      o[...] = acc[:, i : i + o.shape[1]]
      plgpu.commit_smem()
      part = o_hbm.at[(*to, slice(None), pl.ds(i, o.shape[1]))]
      plgpu.copy_smem_to_gmem(o.at[own], part)
      plgpu.wait_smem_to_gmem(0)
    plgpu.copy_smem_to_gmem(lse.at[own], lse_hbm.at[to])
    plgpu.wait_smem_to_gmem(0)


def _attend(rule, refs, barriers, inside, carry, interpret):
  """Takes one block of keys, those in [low, high), into the running softmax."""
  q, k, v, ps = refs
  k_in, v_in, k_free, v_free = barriers
  acc, m, l = carry
  low, high = inside
  shape = q.shape[0], k.shape[0]
  plgpu.barrier_wait(k_in)
  s = hopper.product(q, k.transpose((1, 0)))
  plgpu.barrier_arrive(k_free)
  s, c, _ = hopper.scores_of(s, rule)
  key = plgpu.broadcasted_iota(jnp.int32, shape, 1)
  s = jnp.where((key >= low) & (key < high), s * c, -jnp.inf)
  m_new = jnp.maximum(m, s.max(axis=1))
  alpha = jnp.exp2(m - m_new)
  p = jnp.exp2(s - hopper.across(m_new, shape, 0))
  acc = acc * hopper.across(alpha, acc.shape, 0)
  l = l * alpha + p.sum(axis=1)
  plgpu.barrier_wait(v_in)

  # What the row does not own may be NaN, and 0 * NaN is NaN.
  @pl.when((low > 0) | (high < v.shape[0]))
  def _():
    own = plgpu.broadcasted_iota(jnp.int32, (v.shape[0], 64), 0)
    own = (own >= low) & (own < high)
    for i in range(0, v.shape[1], 64):  # few registers at a time
      part = v.at[:, pl.ds(i, 64)]
      x = hopper.place(part[...], interpret)
      part[...] = jnp.where(own, x, jnp.zeros_like(x))
    plgpu.commit_smem()

  (acc,) = hopper.add_products((acc,), [(p.astype(v.dtype), v)], ps)
  plgpu.barrier_arrive(v_free)
  return acc, m_new, l
