"""Flash attention for Hopper (sm_90a), written in Pallas Mosaic GPU.

Each program owns one tile of rows of one head. Its last warpgroup copies (TMA)
through a ring of shared-memory stages; the others each keep 64 rows in
registers and multiply (wgmma). The backward pass recomputes probabilities from
the saved log-sum-exp: one kernel keeps queries and walks keys (dq), one keeps
keys and walks the queries of the whole group (dk, dv), so that no sum depends
on timing. FlashAttention-3 (arXiv 2407.08608) describes the schedule.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels import hopper
from kernels.layout import pad
from kernels.mask import Limits, Rule


def forward(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  rule: Rule,
  limits: Limits,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BTKGH, lse_BTKG); products and sums are kept in fp32.

  `interpret` is False, True or InterpretGPUParams: a variant for the CPU, with
  P in shared memory, since the interpreter has no wgmma from registers.

  Raises:
    ValueError: H > 256.
  """
  hopper.check_width(q_BTKGH.shape[-1])
  B, T, K, G, H = q_BTKGH.shape
  S = k_BSKH.shape[1]
  q = pad(pad(q_BTKGH.reshape(B, T, K * G, H), 3, 64), 1, hopper.ROWS)
  plan = hopper.plan_of("forward", q.shape[-1], rule, limits)
  k, v = (pad(pad(x, 3, 64), 1, plan.block) for x in (k_BSKH, v_BSKH))
  walk, table = hopper.walk_of("forward", plan, rule, limits, B, T, S)
  segments = hopper.pad_segments(limits, q.shape[1], k.shape[1])
  body = _forward_body(plan, walk, G, len(table), len(segments), interpret)
  Hp, W, dtype = q.shape[-1], plan.groups, q.dtype
  ring = hopper.smem((plan.stages, plan.block, Hp), dtype)
  scratch = (
    hopper.smem((W, hopper.ROWS, Hp), dtype),
    ring,
    ring,
    plgpu.SMEM((W, hopper.ROWS), jnp.float32),
    hopper.smem((W, hopper.ROWS, plan.block), dtype) if interpret else None,
    plgpu.Barrier(num_barriers=W),
    plgpu.Barrier(num_barriers=plan.stages),
    plgpu.Barrier(num_barriers=plan.stages),
    plgpu.Barrier(num_arrivals=W, num_barriers=plan.stages),
    plgpu.Barrier(num_arrivals=W, num_barriers=plan.stages),
    plgpu.Barrier(num_arrivals=2),
  )
  out = [
    jax.ShapeDtypeStruct(q.shape, dtype),
    jax.ShapeDtypeStruct((B, K * G, q.shape[1]), jnp.float32),
  ]
  grid = (pl.cdiv(q.shape[1], plan.tile), B, K * G)
  o, lse = hopper.launch(body, plan, out, scratch, grid, interpret)(
    q, k, v, *table, *segments
  )
  o_BTKGH = o[:, :T, :, :H].reshape(q_BTKGH.shape)
  return o_BTKGH, lse[:, :, :T].swapaxes(1, 2).reshape(B, T, K, G)


def _finish(acc: Any, m: Any, l: Any, o_ref: Any, lse_ref: Any) -> None:
  """Writes o and its log-sum-exp; a row that saw nothing gets 0 and -inf."""
  some = l > 0
  l = jnp.where(some, l, 1.0)
  o_ref[...] = (acc * hopper.across(1 / l, acc.shape, 0)).astype(o_ref.dtype)
  lse = m / hopper.LOG2E + jnp.log(l)
  lse_ref[...] = jnp.where(some, lse, -jnp.inf)


def _forward_body(
  plan: hopper.Plan,
  walk: hopper.Walk,
  G: int,
  tables: int,
  segments: int,
  interpret: Any,
) -> Callable:
  """Returns the kernel: queries stay, keys pass."""
  shape = (hopper.ROWS, plan.block)

  def body(q_hbm, k_hbm, v_hbm, *refs):
    table, q_seg, kv_seg, refs = hopper.split_refs(refs, tables, segments)
    o_hbm, lse_hbm, *scratch = refs
    qo2, ks, vs, lse2, ps, q_in, k_in, v_in, k_free, v_free, turn = scratch
    group, batch = lax.axis_index("group"), lax.axis_index("batch")
    head, tile = lax.axis_index("head"), lax.axis_index("tile")
    if walk.rule.causal:  # the longest first
      tile = pl.cdiv(q_hbm.shape[1], plan.tile) - 1 - tile
    bounds, window, offset = walk.of(tile, table, batch)
    kv_head = lax.div(head, jnp.int32(G))

    def fetch(step, slot):
      span = pl.ds(hopper.block_at(bounds, step) * plan.block, plan.block)
      at = (batch, span, kv_head)
      plgpu.copy_gmem_to_smem(k_hbm.at[at], ks.at[slot], k_in.at[slot])
      plgpu.copy_gmem_to_smem(v_hbm.at[at], vs.at[slot], v_in.at[slot])

    steps = bounds[3] - bounds[0]
    hopper.run_copier(plan, group, steps, fetch, (k_free, v_free))

    # Two warpgroups take turns: one multiplies while the other exponentiates.
    def pass_turn():
      if plan.groups == 2:
        plgpu.barrier_arrive(turn)
        plgpu.barrier_wait(turn)

    @pl.when(group < plan.groups)
    def _():
      plgpu.set_max_registers(hopper.registers_of(plan)[0], action="increase")
      qo, lse = qo2.at[group], lse2.at[group]
      first = tile * plan.tile + group * hopper.ROWS
      inside = first < q_hbm.shape[1]
      at = (batch, pl.ds(first, hopper.ROWS), head)

      @pl.when(inside)
      def _():
        plgpu.copy_gmem_to_smem(q_hbm.at[at], qo, q_in.at[group])
        plgpu.barrier_wait(q_in.at[group])

      ids: Any = None
      if q_seg is not None:
        row = jnp.where(inside, first, 0)
        mine = q_seg.at[batch, pl.ds(row, hopper.ROWS)]
        ids = hopper.load_ids(mine, hopper.ROW)
      pl.when(group == 1)(pass_turn)

      def step(i, carry, masked):
        acc, m, l = carry
        slot = lax.rem(i, jnp.int32(plan.stages))
        plgpu.barrier_wait(k_in.at[slot])

        def multiply(ref):
          plgpu.wgmma(ref, qo, ks.at[slot].transpose((1, 0)))
          pass_turn()
          return ref[...]

        ref = plgpu.WGMMAAccumulatorRef(shape, jnp.float32)
        s = pl.run_scoped(multiply, ref)
        plgpu.barrier_arrive(k_free.at[slot])
        s, c, _ = hopper.scores_of(s, walk.rule)
        if masked:
          s, c = s * c, 1.0
          k_at = hopper.block_at(bounds, i) * plan.block
          pair = None
          if kv_seg is not None:
            theirs = kv_seg.at[batch, pl.ds(k_at, plan.block)]
            theirs = hopper.load_ids(theirs, hopper.COLUMN)
            mine = hopper.across(ids, shape, 0)
            pair = (mine, hopper.across(theirs, shape, 1))
          at = (shape, 0, first, k_at)
          seen = hopper.pairs_seen(*at, walk, window, offset, pair)
          if seen is not None:
            s = jnp.where(seen, s, -jnp.inf)
        m_new = jnp.maximum(m, s.max(axis=1) * c)
        alpha = jnp.exp2(m - m_new)
        p = jnp.exp2(s * c - hopper.across(m_new, shape, 0))
        acc = acc * hopper.across(alpha, acc.shape, 0)
        l = l * alpha + p.sum(axis=1)
        p = p.astype(ks.dtype)
        if not interpret:
          acc, l, m_new, p = lax.optimization_barrier((acc, l, m_new, p))
        if plan.groups == 2:
          plgpu.barrier_arrive(turn)
        plgpu.barrier_wait(v_in.at[slot])
        if plan.groups == 2:
          plgpu.barrier_wait(turn)
        room = ps.at[group] if interpret else None
        (acc,) = hopper.add_products((acc,), [(p, vs.at[slot])], room)
        plgpu.barrier_arrive(v_free.at[slot])
        return acc, m_new, l

      make = lambda x, *s: hopper.place(
        jnp.full((hopper.ROWS, *s), x, jnp.float32), interpret
      )
      start = make(0.0, qo.shape[-1]), make(hopper.FLOOR), make(0.0)
      acc, m, l = hopper.walk_blocks(bounds, step, start)
      pl.when(group == 0)(pass_turn)
      _finish(acc, m, l, qo, lse)
      plgpu.commit_smem()

      @pl.when(inside)
      def _():
        line = lse_hbm.at[batch, head, pl.ds(first, hopper.ROWS)]
        plgpu.copy_smem_to_gmem(qo, o_hbm.at[at])
        plgpu.copy_smem_to_gmem(lse, line)
        plgpu.wait_smem_to_gmem(0)

  return body


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
  """Returns (dq, dk, dv), the same bits each time: nothing is added atomically.

  p = exp(s - lse) with the `lse` given, which may belong to more keys than
  these; `delta` = sum_H(do o) - dlse. `interpret` as in `forward`.

  Raises:
    ValueError: H > 256.
  """
  do_BTKGH = do_BTKGH.astype(q_BTKGH.dtype)
  hopper.check_width(q_BTKGH.shape[-1])
  B, T, K, G, H = q_BTKGH.shape
  wide = lambda x: pad(x, x.ndim - 1, 64)
  q, do = (wide(x.reshape(B, T, K * G, H)) for x in (q_BTKGH, do_BTKGH))
  inputs = (q, do, wide(k_BSKH), wide(v_BSKH))
  flat = lambda x: x.reshape(B, T, K * G).swapaxes(1, 2)
  # A row of lse +inf has p = 0: rows that see nothing, and rows past T.
  lse_BNT = jnp.where(jnp.isneginf(lse_BTKG), jnp.inf, lse_BTKG * hopper.LOG2E)
  rows = (flat(lse_BNT), flat(delta_BTKG))
  dq = _dq(inputs, rows, rule, limits, G, interpret)
  if q.shape[-1] <= 128:
    dk, dv = _dkv(inputs, rows, rule, limits, G, interpret, (True, True))
  else:  # both sums, 2 x 64 x H, do not fit in the registers
    (dk,) = _dkv(inputs, rows, rule, limits, G, interpret, (True, False))
    (dv,) = _dkv(inputs, rows, rule, limits, G, interpret, (False, True))
  S = k_BSKH.shape[1]
  dq_BTKGH = dq[:, :T, :, :H].reshape(q_BTKGH.shape)
  return dq_BTKGH, dk[:, :S, :, :H], dv[:, :S, :, :H]


def _dq(
  inputs: tuple, rows: tuple, rule: Rule, limits: Limits, G: int, interpret: Any
) -> jax.Array:
  """Returns dq [B, padded T, N, padded H]."""
  (B, T, N, H), S = inputs[0].shape, inputs[2].shape[1]
  plan = hopper.plan_of("dq", H, rule, limits)
  q, do = (pad(x, 1, hopper.ROWS) for x in inputs[:2])
  k, v = (pad(x, 1, plan.block) for x in inputs[2:])
  lse, delta = (
    pad(x, 2, hopper.ROWS, constant_values=fill)
    for x, fill in zip(rows, (jnp.inf, 0.0), strict=True)
  )
  walk, table = hopper.walk_of("dq", plan, rule, limits, B, T, S)
  segments = hopper.pad_segments(limits, q.shape[1], k.shape[1])
  body = _dq_body(plan, walk, G, len(table), len(segments), interpret)
  W, dtype = plan.groups, q.dtype
  ring = hopper.smem((plan.stages, plan.block, H), dtype)
  kept = hopper.smem((W, hopper.ROWS, H), dtype)
  barrier = plgpu.Barrier(num_barriers=plan.stages)
  free = plgpu.Barrier(num_arrivals=W, num_barriers=plan.stages)
  scratch = (
    kept, kept, plgpu.SMEM((W, hopper.ROWS), jnp.float32),
    plgpu.SMEM((W, hopper.ROWS), jnp.float32), ring, ring,
    hopper.smem((W, hopper.ROWS, plan.block), dtype) if interpret else None,
    plgpu.Barrier(num_arrivals=4, num_barriers=W), barrier, barrier, free, free,
  )  # fmt: skip
  out = [jax.ShapeDtypeStruct(q.shape, dtype)]
  grid = (pl.cdiv(q.shape[1], plan.tile), B, N)
  (dq,) = hopper.launch(body, plan, out, scratch, grid, interpret)(
    q, do, k, v, lse, delta, *table, *segments
  )
  return dq


def _p(s: jax.Array, lse: jax.Array, rule: Rule, seen: Any) -> tuple:
  """Returns (p, the derivative of the softcap or None)."""
  s, c, t = hopper.scores_of(s, rule)
  s = s * c - lse
  p = jnp.exp2(s if seen is None else jnp.where(seen, s, -jnp.inf))
  return p, None if t is None else 1 - t * t


def _ds(p: tuple, dp: jax.Array, delta: jax.Array) -> jax.Array:
  """Returns ds over scale."""
  x = p[0] * (dp - delta)
  return x if p[1] is None else x * p[1]


def _store(
  x: jax.Array, room: Any, out: Any, batch: Any, first: Any, head: Any
) -> None:
  """Writes a warpgroup's rows to out, if they are there, by way of a room."""
  room[...] = x.astype(room.dtype)
  plgpu.commit_smem()

  @pl.when(first < out.shape[1])
  def _():
    at = (batch, pl.ds(first, hopper.ROWS), head)
    plgpu.copy_smem_to_gmem(room, out.at[at])
    plgpu.wait_smem_to_gmem(0)


def _dq_body(
  plan: hopper.Plan,
  walk: hopper.Walk,
  G: int,
  tables: int,
  segments: int,
  interpret: Any,
) -> Callable:
  """Returns the kernel: queries stay, keys pass; ds k is summed."""
  shape = (hopper.ROWS, plan.block)

  def body(q_hbm, do_hbm, k_hbm, v_hbm, lse_hbm, delta_hbm, *refs):
    table, q_seg, kv_seg, refs = hopper.split_refs(refs, tables, segments)
    dq_hbm, *scratch = refs
    q2, do2, lse2, delta2, ks, vs, ps, row_in, k_in, v_in, k_free, v_free = (
      scratch
    )
    group, batch = lax.axis_index("group"), lax.axis_index("batch")
    head, tile = lax.axis_index("head"), lax.axis_index("tile")
    if walk.rule.causal:  # the longest first
      tile = pl.cdiv(q_hbm.shape[1], plan.tile) - 1 - tile
    bounds, window, offset = walk.of(tile, table, batch)
    kv_head = lax.div(head, jnp.int32(G))

    def fetch(step, slot):
      span = pl.ds(hopper.block_at(bounds, step) * plan.block, plan.block)
      at = (batch, span, kv_head)
      plgpu.copy_gmem_to_smem(k_hbm.at[at], ks.at[slot], k_in.at[slot])
      plgpu.copy_gmem_to_smem(v_hbm.at[at], vs.at[slot], v_in.at[slot])

    steps = bounds[3] - bounds[0]
    hopper.run_copier(plan, group, steps, fetch, (k_free, v_free))

    @pl.when(group < plan.groups)
    def _():
      plgpu.set_max_registers(hopper.registers_of(plan)[0], action="increase")
      first = tile * plan.tile + group * hopper.ROWS
      inside = first < q_hbm.shape[1]
      at = (batch, pl.ds(first, hopper.ROWS), head)
      line = (batch, head, pl.ds(first, hopper.ROWS))
      qs, dos = q2.at[group], do2.at[group]

      @pl.when(inside)
      def _():
        full = row_in.at[group]
        plgpu.copy_gmem_to_smem(q_hbm.at[at], qs, full)
        plgpu.copy_gmem_to_smem(do_hbm.at[at], dos, full)
        plgpu.copy_gmem_to_smem(lse_hbm.at[line], lse2.at[group], full)
        plgpu.copy_gmem_to_smem(delta_hbm.at[line], delta2.at[group], full)
        plgpu.barrier_wait(full)

      lse = plgpu.load(lse2.at[group], layout=hopper.ROW)
      delta = plgpu.load(delta2.at[group], layout=hopper.ROW)
      ids: Any = None
      if q_seg is not None:
        row = jnp.where(inside, first, 0)
        ids = hopper.load_ids(
          q_seg.at[batch, pl.ds(row, hopper.ROWS)], hopper.ROW
        )

      def step(i, acc, masked):
        slot = lax.rem(i, jnp.int32(plan.stages))
        mine = hopper.again(group, interpret)
        qs, dos = q2.at[mine], do2.at[mine]
        wide = lambda x: hopper.across(x, shape, 0)

        def use(s):
          if not masked:
            return _p(s, wide(lse), walk.rule, None)
          corner = (first, hopper.block_at(bounds, i) * plan.block)
          at, pair = (batch, pl.ds(corner[1], plan.block)), None
          if ids is not None:
            pair = (
              wide(ids),
              hopper.across(
                hopper.load_ids(kv_seg.at[at], hopper.COLUMN), shape, 1
              ),
            )
          seen = hopper.pairs_seen(
            shape, 0, *corner, walk, window, offset, pair
          )
          return _p(s, wide(lse), walk.rule, seen)

        plgpu.barrier_wait(k_in.at[slot])
        plgpu.barrier_wait(v_in.at[slot])
        p, dp = hopper.two_products(
          (qs, ks.at[slot].transpose((1, 0))),
          (dos, vs.at[slot].transpose((1, 0))),
          use,
        )
        plgpu.barrier_arrive(v_free.at[slot])
        ds = _ds(p, dp, wide(delta)).astype(ks.dtype)
        scratch = ps.at[group] if interpret else None
        (acc,) = hopper.add_products((acc,), [(ds, ks.at[slot])], scratch)
        plgpu.barrier_arrive(k_free.at[slot])
        return acc

      zero = hopper.place(
        jnp.zeros((hopper.ROWS, qs.shape[-1]), jnp.float32), interpret
      )
      acc = hopper.walk_blocks(bounds, step, zero)
      late = hopper.again(group, interpret)
      row = tile * plan.tile + late * hopper.ROWS
      acc = acc * walk.rule.scale
      _store(acc, q2.at[late], dq_hbm, batch, row, head)

  return body


def _dkv(
  inputs: tuple, rows: tuple, rule: Rule, limits: Limits, G: int,
  interpret: Any, wanted: tuple[bool, bool],
) -> list[jax.Array]:  # fmt: skip
  """Returns those of dk and dv [B, padded S, K, padded H] that are wanted."""
  (B, T, _, H), (_, S, K, _) = inputs[0].shape, inputs[2].shape
  plan = hopper.plan_of("dkv", H, rule, limits)
  q, do = (pad(x, 1, plan.block) for x in inputs[:2])
  k, v = (pad(x, 1, hopper.ROWS) for x in inputs[2:])
  lse, delta = (
    pad(x, 2, plan.block, constant_values=fill)
    for x, fill in zip(rows, (jnp.inf, 0.0), strict=True)
  )
  walk, table = hopper.walk_of("dkv", plan, rule, limits, B, T, S)
  segments = hopper.pad_segments(limits, q.shape[1], k.shape[1])
  body = _dkv_body(plan, walk, G, len(table), len(segments), interpret, wanted)
  W, dtype = plan.groups, q.dtype
  ring = hopper.smem((plan.stages, plan.block, H), dtype)
  kept = hopper.smem((W, hopper.ROWS, H), dtype)
  line = plgpu.SMEM((plan.stages, plan.block), jnp.float32)
  full = plgpu.Barrier(num_arrivals=4, num_barriers=plan.stages)
  free = plgpu.Barrier(num_arrivals=W, num_barriers=plan.stages)
  scratch = (
    kept, kept if wanted[0] else None, ring, ring, line, line,
    hopper.smem((W, hopper.ROWS, plan.block), dtype) if interpret else None,
    plgpu.Barrier(num_arrivals=1 + wanted[0], num_barriers=W),
    full, free,
  )  # fmt: skip
  out = [jax.ShapeDtypeStruct(k.shape, dtype)] * sum(wanted)
  grid = (pl.cdiv(k.shape[1], plan.tile), B, K)
  return hopper.launch(body, plan, out, scratch, grid, interpret)(
    q, do, k, v, lse, delta, *table, *segments
  )


def _dkv_body(
  plan: hopper.Plan, walk: hopper.Walk, G: int, tables: int, segments: int,
  interpret: Any, wanted: tuple[bool, bool],
) -> Callable:  # fmt: skip
  """Returns the kernel: keys stay, the group's queries pass.

  Scores are transposed, [keys, queries], so that p and ds come out of the
  product in the registers in which the next one wants them.
  """
  shape = (hopper.ROWS, plan.block)

  def body(q_hbm, do_hbm, k_hbm, v_hbm, lse_hbm, delta_hbm, *refs):
    table, q_seg, kv_seg, refs = hopper.split_refs(refs, tables, segments)
    outs = refs[: sum(wanted)]
    scratch = refs[sum(wanted) :]
    k2, v2, qs, dos, lses, deltas, ps, kv_in, full, free = scratch
    group, batch = lax.axis_index("group"), lax.axis_index("batch")
    kv_head, tile = lax.axis_index("head"), lax.axis_index("tile")
    bounds, window, offset = walk.of(tile, table, batch)
    steps = bounds[3] - bounds[0]

    def fetch(step, slot):
      head = kv_head * G + lax.div(step, steps)
      block = hopper.block_at(bounds, lax.rem(step, steps))
      span = pl.ds(block * plan.block, plan.block)
      at, line = (batch, span, head), (batch, head, span)
      for hbm, ring, where in (
        (q_hbm, qs, at), (do_hbm, dos, at),
        (lse_hbm, lses, line), (delta_hbm, deltas, line),
      ):  # fmt: skip
        plgpu.copy_gmem_to_smem(hbm.at[where], ring.at[slot], full.at[slot])

    hopper.run_copier(plan, group, steps * G, fetch, (free,))

    @pl.when(group < plan.groups)
    def _():
      plgpu.set_max_registers(hopper.registers_of(plan)[0], action="increase")
      first = tile * plan.tile + group * hopper.ROWS
      inside = first < k_hbm.shape[1]
      at = (batch, pl.ds(first, hopper.ROWS), kv_head)
      ks = k2.at[group]
      vs: Any = v2.at[group] if wanted[0] else None

      @pl.when(inside)
      def _():
        plgpu.copy_gmem_to_smem(k_hbm.at[at], ks, kv_in.at[group])
        if wanted[0]:
          plgpu.copy_gmem_to_smem(v_hbm.at[at], vs, kv_in.at[group])
        plgpu.barrier_wait(kv_in.at[group])

      ids: Any = None
      if kv_seg is not None:
        row = jnp.where(inside, first, 0)
        ids = hopper.load_ids(
          kv_seg.at[batch, pl.ds(row, hopper.ROWS)], hopper.ROW
        )

      def step(i, carry, masked):
        slot, *sums = carry
        mine = hopper.again(group, interpret)
        ks, vs = k2.at[mine], v2.at[mine] if wanted[0] else None
        wide = lambda x: hopper.across(x, shape, 1)

        def use(s):
          seen = None
          if masked:
            corner = (hopper.block_at(bounds, i) * plan.block, first)
            at, pair = (batch, pl.ds(corner[0], plan.block)), None
            if ids is not None:
              pair = (
                hopper.across(ids, shape, 0),
                wide(hopper.load_ids(q_seg.at[at], hopper.COLUMN)),
              )
            seen = hopper.pairs_seen(
              shape, 1, *corner, walk, window, offset, pair
            )
          lse = plgpu.load(lses.at[slot], layout=hopper.COLUMN)
          return _p(s, wide(lse), walk.rule, seen)

        plgpu.barrier_wait(full.at[slot])
        q, do = qs.at[slot], dos.at[slot]
        scores = (ks, q.transpose((1, 0)))
        pairs = []
        if wanted[0]:
          p, dp = hopper.two_products(scores, (vs, do.transpose((1, 0))), use)
          delta = wide(plgpu.load(deltas.at[slot], layout=hopper.COLUMN))
          pairs.append((_ds(p, dp, delta).astype(q.dtype), q))
        else:
          p = use(hopper.product(*scores))
        if wanted[1]:
          pairs.append((p[0].astype(do.dtype), do))
        new = hopper.add_products(
          tuple(sums), pairs, ps.at[group] if interpret else None
        )
        plgpu.barrier_arrive(free.at[slot])
        return jnp.where(slot == plan.stages - 1, 0, slot + 1), *new

      zero = hopper.place(
        jnp.zeros((hopper.ROWS, ks.shape[-1]), jnp.float32), interpret
      )
      _, *sums = lax.fori_loop(
        0, G,
        lambda _, carry: hopper.walk_blocks(bounds, step, carry),
        (jnp.int32(0), *((zero,) * sum(wanted))),
      )  # fmt: skip
      late = hopper.again(group, interpret)
      row = tile * plan.tile + late * hopper.ROWS
      if wanted[0]:
        sums[0] = sums[0] * walk.rule.scale
      for x, out, rooms in zip(sums, outs, (k2, v2), strict=False):
        _store(x, rooms.at[late], out, batch, row, kv_head)

  return body
