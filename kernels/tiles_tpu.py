"""The tiles that an attention kernel for TPU visits, as a table of words.

A tile pairs `q` queries of the G heads of a group, G * q rows of one matrix,
with `kv` keys. The table lists those with a visible pair, forward query block
by query block, backward key block by key block; a scalar core reads it ahead
of the grid, so that the rest costs neither work nor copies. A word holds flags
and the tile's two block numbers.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from kernels import mask
from kernels.layout import pad
from kernels.mask import Limits, Rule
from kernels.tpu import LANES

ROWS = 1024  # G * q, the rows of a tile
KEYS = 1024  # kv, its columns
WORDS = 1 << 17  # of the table: scalar memory holds 1 MiB

# FIRST and LAST of a row of tiles (forward) or a column (backward); LIVE with a
# visible pair, EDGE with a hidden one too. Backward, of the block of dq: FRESH
# when it was not yet visited, CARRY when the step before had it too, KEEP when
# the step after will; END of all steps.
FIRST, LAST, LIVE, EDGE, FRESH, CARRY, KEEP, END = (1 << n for n in range(8))
I_BIT, J_BIT = 8, 20


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a kernel knows when it is compiled: sizes, tiles, what is masked."""

  rule: Rule
  B: int
  K: int
  G: int
  T: int
  S: int
  H: int
  q: int
  kv: int
  dtype: Any
  traced: bool  # the window or the offset is
  moving: bool  # the table differs between rows of the batch
  window: bool  # there is a window, static or traced
  segments: bool

  @property
  def tiles(self) -> tuple[int, int]:
    """How many blocks of queries and of keys there are."""
    return -(-self.T // self.q), -(-self.S // self.kv)

  @property
  def masked(self) -> bool:
    """Whether any tile needs a mask."""
    tail = self.S % self.kv != 0
    return self.rule.causal or self.window or self.segments or tail


class Entry(NamedTuple):
  """One tile of the table, as scalars in the kernel."""

  word: Any
  i: Any
  j: Any

  def has(self, flag: int) -> Any:
    """Whether the flag is set."""
    return (self.word & flag) != 0


def _up(x: int, to: int) -> int:
  return -(-x // to) * to


def choose(q_BTKGH, k_BSKH, rule: Rule, limits: Limits, back: bool) -> Plan:
  """Chooses the tiles: multiples of 128, no longer than the operands.

  Raises:
    ValueError: the table of so many tiles does not fit scalar memory.
  """
  B, T, K, G, H = q_BTKGH.shape
  S = k_BSKH.shape[1]
  if rule.blocks is None:
    q, kv = max(ROWS // G, LANES), KEYS
  else:
    q = rule.blocks.q_backward if back else rule.blocks.q
    kv = rule.blocks.kv_backward if back else rule.blocks.kv
  q = min(max(q // LANES, 1) * LANES, _up(T, LANES))
  kv = min(max(kv // LANES, 1) * LANES, _up(S, LANES))
  traced = limits.window_B is not None or limits.q_offset_B is not None
  segments = limits.q_segments_BT is not None
  plan = Plan(
    rule=rule,
    B=B,
    K=K,
    G=G,
    T=T,
    S=S,
    H=H,
    q=q,
    kv=kv,
    dtype=jnp.dtype(q_BTKGH.dtype),
    traced=traced,
    moving=traced or segments,
    window=rule.window is not None or limits.window_B is not None,
    segments=segments,
  )
  words = math.prod(plan.tiles) * (B if plan.moving else 1)
  if words > WORDS:
    raise ValueError(
      f"blocks: {words} tiles of {q} queries and {kv} keys for q of shape"
      f" {q_BTKGH.shape} and k of shape {k_BSKH.shape}; {WORDS} fit"
    )
  most = 1 << (J_BIT - I_BIT)
  if max(plan.tiles) > most:
    raise ValueError(
      f"blocks: {plan.tiles} blocks of {q} queries and {kv} keys for q of shape"
      f" {q_BTKGH.shape} and k of shape {k_BSKH.shape}; {most} of each fit"
    )
  return plan


def _seen(plan: Plan, limits: Limits) -> tuple[Any, Any]:
  """Returns (live, edge), [B or 1, I, J]: NumPy where limits are static.

  A live tile has a visible pair, one on an edge has a hidden pair too.
  """
  xp: Any = jnp if plan.moving else np
  i = np.arange(plan.tiles[0])[None, :, None]
  j = np.arange(plan.tiles[1])[None, None, :]
  column = lambda x: xp.reshape(xp.asarray(x, np.int32), (-1, 1, 1))
  window = mask.window_of(plan.rule, limits)
  at = column(mask.q_offset_of(plan.rule, limits))
  q_low, q_high = at + i * plan.q, at + np.minimum((i + 1) * plan.q, plan.T) - 1
  k_low, k_high = j * plan.kv, np.minimum((j + 1) * plan.kv, plan.S) - 1
  live = (q_low == q_low) & (k_low == k_low)
  edge = live & ((j + 1) * plan.kv > plan.S)
  if plan.rule.causal:
    live, edge = live & (k_low <= q_high), edge | (k_high > q_low)
  if window is not None:
    wide = column(window)
    live, edge = live & (k_high > q_low - wide), edge | (k_low <= q_high - wide)
  if limits.q_segments_BT is not None and limits.kv_segments_BS is not None:
    q_min, q_max = _spans(limits.q_segments_BT, plan.q)
    k_min, k_max = _spans(limits.kv_segments_BS, plan.kv)
    q_min, q_max = q_min[:, :, None], q_max[:, :, None]
    k_min, k_max = k_min[:, None, :], k_max[:, None, :]
    live = live & (q_min <= k_max) & (k_min <= q_max)
    edge = edge | (q_min != q_max) | (k_min != k_max) | (q_min != k_min)
  return live, edge & live


def _spans(segments_BT: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
  """Returns each block's least and greatest segment, [B, blocks]."""
  ids_BT = pad(segments_BT, 1, block, mode="edge")
  ids = ids_BT.reshape(ids_BT.shape[0], -1, block)
  return ids.min(-1), ids.max(-1)


def listed(plan: Plan, limits: Limits, back: bool) -> tuple[Any, Any]:
  """Lists the tiles: (int32 [B or 1, n + 1], how many steps the grid takes).

  A block that sees nothing is visited once, for its empty output. Past a row's
  own end follow idle entries, which stay where the last tile was.
  """
  xp: Any = jnp if plan.moving else np
  live, edge = _seen(plan, limits)
  _, i, j = np.ogrid[:1, : live.shape[1], : live.shape[2]]
  need = live | (~live.any(2, keepdims=True) & (j == 0))
  if back:
    need = live | (~live.any(1, keepdims=True) & (i == 0))
    need = need | (~need.any(2, keepdims=True) & (j == 0))
  axis = 1 if back else 2
  before = xp.cumsum(need, axis) - need
  after = need.sum(axis, keepdims=True) - need - before
  word = LIVE * live + EDGE * edge + (i << I_BIT) + (j << J_BIT)
  word = word + FIRST * (before == 0) + LAST * (after == 0)
  if back:
    word = word + FRESH * (xp.cumsum(need, 2) - need == 0)
    word, need = word.swapaxes(1, 2), need.swapaxes(1, 2)
  word, need = (x.reshape(x.shape[0], -1) for x in (word, need))
  word = xp.take_along_axis(word, xp.argsort(~need, axis=1, stable=True), 1)
  return _ended(plan, word, need.sum(1))


def _ended(plan: Plan, word, count) -> tuple[Any, Any]:
  """Ends each row's list at its count, and says where dq's block stays."""
  xp: Any = jnp if plan.moving else np
  n = np.arange(word.shape[1] + 1)[None]
  count = count[:, None]
  word = xp.concatenate([word, word[:, :1]], 1)
  last = xp.take_along_axis(word, count - 1, 1)
  idle = (last >> I_BIT << I_BIT) | CARRY | KEEP
  word = xp.where(n < count, word, idle) + END * (n == count - 1)
  blocks = word[:, 1:] >> I_BIT, word[:, :-1] >> I_BIT
  same = (blocks[0] ^ blocks[1]) & ((1 << (J_BIT - I_BIT)) - 1) == 0
  same = same & (n[:, 1:] < count)
  none = np.zeros((word.shape[0], 1), bool)
  word = word | CARRY * xp.concatenate([none, same], 1)
  word = word | KEEP * xp.concatenate([same, none], 1)
  steps = count.max() if plan.moving else int(count.max())
  size = word.shape[1] if plan.moving else int(steps) + 1
  return word[:, :size].astype(np.int32), steps


def bounds(plan: Plan, limits: Limits) -> jax.Array:
  """Returns int32 [2, B]: each row's window and offset."""
  window = mask.window_of(plan.rule, limits)
  row = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (plan.B,))
  window_B = row(0 if window is None else window)
  return jnp.stack([window_B, row(mask.q_offset_of(plan.rule, limits))])


def batch(plan: Plan, head: Any) -> Any:
  """The row of the batch that a step of the grid's first axis belongs to."""
  return head if plan.K == 1 else jax.lax.div(head, plan.K)


def entry_at(plan: Plan, table_ref, head: Any, step: Any) -> Entry:
  """Unpacks a word of the flat table."""
  size = table_ref.shape[0] // plan.B
  row = batch(plan, head) * size if plan.moving else 0
  word = table_ref[row + step]
  shift = jax.lax.shift_right_logical
  i = shift(word, I_BIT) & ((1 << (J_BIT - I_BIT)) - 1)
  return Entry(word, i, shift(word, J_BIT))


def here(plan: Plan, table_ref, ahead: int = 0) -> Entry:
  """The tile of this step of the grid, or of one ahead."""
  step = pl.program_id(1) + ahead
  return entry_at(plan, table_ref, pl.program_id(0), step)


def bound(plan: Plan, bounds_ref) -> tuple[Any, Any]:
  """The window and the offset of this row of the batch."""
  b = batch(plan, pl.program_id(0)) if plan.traced else 0
  return bounds_ref[0, b], bounds_ref[1, b]


def block(plan: Plan, shape: tuple[int | None, ...], where: str):
  """The spec of a block at b, head, i or j, a letter for each axis."""

  def index(head, step, table_ref, bounds_ref):
    entry = entry_at(plan, table_ref, head, step)
    at = {"h": head, "i": entry.i, "j": entry.j, "0": 0}
    if "b" in where:
      at["b"] = batch(plan, head)
    return tuple(at[letter] for letter in where)

  return pl.BlockSpec(shape, index)


def head_major(plan: Plan, x: jax.Array, **how: Any) -> jax.Array:
  """[B, T, K, G, ..] to [B * K, G, T, ..], padded to whole tiles."""
  x = pad(jnp.moveaxis(x, 1, 3), 3, plan.q, **how)
  return x.reshape(plan.B * plan.K, *x.shape[2:])


def head_major_keys(plan: Plan, x_BSKH: jax.Array) -> jax.Array:
  """[B, S, K, H] to [B * K, S, H], padded to whole tiles."""
  x_BKSH = pad(x_BSKH.swapaxes(1, 2), 2, plan.kv)
  return x_BKSH.reshape(plan.B * plan.K, *x_BKSH.shape[2:])


def token_major(plan: Plan, x: jax.Array) -> jax.Array:
  """[B * K, G, T, ..] back to [B, T, K, G, ..], without the padding."""
  x = x.reshape(plan.B, plan.K, *x.shape[1:])
  return jnp.moveaxis(x[:, :, :, : plan.T], 3, 1)


def token_major_keys(plan: Plan, x_bSH: jax.Array) -> jax.Array:
  """[B * K, S, H] back to [B, S, K, H], without the padding."""
  x_BKSH = x_bSH.reshape(plan.B, plan.K, *x_bSH.shape[1:])
  return x_BKSH[:, :, : plan.S].swapaxes(1, 2)
