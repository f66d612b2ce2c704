"""Attention over a sequence that lies on several devices (inside shard_map).

Keys and values travel round the ring of an axis, a neighbour a step, while each
device attends with its own queries to what has just come by (Ring Attention,
2310.01889). The parts are merged by their lse; the derivative goes round once
more, with the keys' gradients aboard:

    step      0        1        2        3
    device 0  k0 v0    k3 v3    k2 v2    k1 v1
    device 1  k1 v1    k0 v0    k3 v3    k2 v2

Under a causal mask the first device of a contiguous layout sees one part of n
and the last one all. `zigzag` evens that out: of 2n chunks a device holds one
from the front and one from the back, for n = 4

    device     0      1      2      3
    chunks    0 7    1 6    2 5    3 4

so each sees as much as any other. The kernels visit no tile outside of the
mask, so a pair of chunks that sees nothing costs next to nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kernels import arguments, attention
from kernels.mask import Blocks, Limits, Rule
from kernels.softmax import merge

LAYOUTS = ("zigzag", "contiguous")


@dataclasses.dataclass(frozen=True)
class _Ring:
  """Who holds what: hashable, a part of the compile key."""

  axis: str
  chunks: int  # of a device: 2 in zigzag, else 1

  @property
  def size(self) -> int:
    return lax.axis_size(self.axis)

  def starts(self, device: Any, T: int) -> list[Any]:
    """The global position of each chunk of a device that holds T tokens."""
    if self.chunks == 1:
      return [device * T]
    half = T // 2
    return [device * half, (2 * self.size - 1 - device) * half]

  def pass_on(self, tree: Any) -> Any:
    """Hands a device's arrays to the next one of the ring."""
    to = [(i, (i + 1) % self.size) for i in range(self.size)]
    return jax.tree.map(lambda x: lax.ppermute(x, self.axis, to), tree)

  def walk(self, attend: Callable[..., Any], keys: Any, sums: Any) -> Any:
    """Returns sums = attend(keys, sums, i) after all n steps of the ring."""

    def step(carry, i):
      keys, sums = carry
      following = self.pass_on(keys)  # on its way while this part is computed
      return (following, attend(keys, sums, i)), None

    if (last := self.size - 1) > 0:
      carry, _ = lax.scan(step, (keys, sums), jnp.arange(last))
      keys, sums = carry
    return attend(keys, sums, jnp.int32(last))

  def cut(self, x: Any) -> list[Any]:
    """A device's chunks along time; None has only None."""
    if x is None:
      return [None] * self.chunks
    return jnp.split(x, self.chunks, axis=1)


def ring_attention(
  q_BTKGH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  *,
  axis_name: str,
  layout: str = "zigzag",
  causal: bool = True,
  window: jax.Array | int | None = None,
  softcap: float | None = None,
  scale: float | None = None,
  sinks: jax.Array | None = None,
  q_segments_BT: jax.Array | None = None,
  kv_segments_BS: jax.Array | None = None,
  return_lse: bool = False,
  blocks: Blocks | None = None,
  impl: str | None = None,
  interpret: Any = False,
) -> Any:
  """Returns flash_attention over the whole sequence, for this device's queries.

  To be called inside of shard_map (with check_vma=False: Pallas cannot say over
  which axes its outputs vary), time split over the mesh axis `axis_name` of n
  devices. Device i holds tokens [i * T, (i + 1) * T) in layout "contiguous";
  in "zigzag" it holds chunks i and 2n - 1 - i of the 2n that the sequence falls
  into, which `to_zigzag` arranges. Everything else is as for
  `flash_attention`; parts are merged in fp32, gradients summed in fp32.

  Memory a device: its own operands, the keys and values that pass by, and in
  the derivative their gradients; nothing grows with n.

  Raises:
    ValueError: an argument is of a wrong shape, dtype or range; names it.
  """
  attention.check(q_BTKGH, k_BTKH, v_BTKH, q_segments_BT, kv_segments_BS, sinks)
  B, T, H = q_BTKGH.shape[0], q_BTKGH.shape[1], q_BTKGH.shape[-1]
  if layout not in LAYOUTS:
    raise ValueError(f"layout is {layout!r}; it is one of {', '.join(LAYOUTS)}")
  if k_BTKH.shape[1] != T:
    raise ValueError(
      f"k has shape {k_BTKH.shape}; a device holds as many keys as queries, "
      f"and q has shape {q_BTKGH.shape}"
    )
  if layout == "zigzag" and T % 2:
    raise ValueError(f"q has shape {q_BTKGH.shape}; a zigzag's T is even")
  # Where all see all, positions do not matter, nor does the layout.
  chunks = 2 if layout == "zigzag" and (causal or window is not None) else 1
  arguments.softcap_and_blocks(softcap, blocks)
  static_window, window_B = arguments.window_of(window, B)
  factor = H**-0.5 if scale is None else scale
  rule = Rule(causal, factor, softcap, static_window, 0, blocks)
  module = attention.implementation(impl, q_BTKGH.dtype)
  attend = functools.partial(
    _attend, module, rule, _Ring(axis_name, chunks), interpret
  )
  limits = Limits(window_B, None, q_segments_BT, kv_segments_BS)
  o_BTKGH, lse_BTKG = attention.guarded(
    attend, q_BTKGH, k_BTKH, v_BTKH, limits, sinks
  )
  return (o_BTKGH, lse_BTKG) if return_lse else o_BTKGH


def _pairs(
  rule: Rule, limits: Limits, ring: _Ring, shape: tuple[int, int], source: Any
):
  """Yields (chunk of queries, chunk of keys, rule, limits) worth a call.

  Keys are those of device `source`. In a zigzag no chunk of queries at the
  front stands behind one of keys at the back, and each at the back stands
  behind all of the front.
  """
  (rows, T), ids_BT = shape, ring.cut(limits.q_segments_BT)
  ids_BS = ring.cut(limits.kv_segments_BS)
  own = ring.starts(lax.axis_index(ring.axis), T)
  unbounded = rule.window is None and limits.window_B is None
  for i, q_at in enumerate(own):
    for j, kv_at in enumerate(ring.starts(source, T)):
      if rule.causal and j > i:
        continue
      pair = limits._replace(q_segments_BT=ids_BT[i], kv_segments_BS=ids_BS[j])
      if unbounded and (i > j or not rule.causal):
        yield i, j, dataclasses.replace(rule, causal=False), pair
      else:
        offset = jnp.full(rows, q_at - kv_at, jnp.int32)
        yield i, j, rule, pair._replace(q_offset_B=offset)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _attend(module, rule, ring, interpret, q_BTKGH, k_BTKH, v_BTKH, limits):
  shape, qs = q_BTKGH.shape[:2], ring.cut(q_BTKGH)
  me = lax.axis_index(ring.axis)

  def attend(keys, parts, i):
    k, v, ids = keys
    ks, vs, parts = ring.cut(k), ring.cut(v), list(parts)
    here = limits._replace(kv_segments_BS=ids)
    source = (me - i) % ring.size
    for a, b, own, pair in _pairs(rule, here, ring, shape, source):
      part = module.forward(qs[a], ks[b], vs[b], own, pair, interpret=interpret)
      parts[a] = merge(*parts[a], *part)
    return parts

  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  empty = [
    (jnp.zeros(x.shape, wide), jnp.full(x.shape[:-1], -jnp.inf, wide))
    for x in qs
  ]
  keys = k_BTKH, v_BTKH, limits.kv_segments_BS
  parts = ring.walk(attend, keys, empty)
  o_BTKGH, lse_BTKG = (
    jnp.concatenate([part[n] for part in parts], axis=1) for n in (0, 1)
  )
  return o_BTKGH.astype(q_BTKGH.dtype), lse_BTKG


def _attend_forward(
  module, rule, ring, interpret, q_BTKGH, k_BTKH, v_BTKH, limits
):
  operands = q_BTKGH, k_BTKH, v_BTKH, limits
  out: Any = _attend(module, rule, ring, interpret, *operands)
  return out, (*operands, *out)


def _attend_backward(module, rule, ring, interpret, saved, cotangents):
  q_BTKGH, k_BTKH, v_BTKH, limits, o_BTKGH, lse_BTKG = saved
  do_BTKGH, dlse_BTKG = cotangents
  delta_BTKG = attention.delta(o_BTKGH, lse_BTKG, do_BTKGH, dlse_BTKG)
  shape, cut, me = q_BTKGH.shape[:2], ring.cut, lax.axis_index(ring.axis)
  qs, dos = cut(q_BTKGH), cut(do_BTKGH)
  lses, deltas = cut(lse_BTKG), cut(delta_BTKG)

  def attend(keys, sums, i):
    k, v, ids = keys
    ks, vs = cut(k), cut(v)
    dqs, dks, dvs = (list(x) for x in sums)
    here = limits._replace(kv_segments_BS=ids)
    source = (me - i) % ring.size
    for a, b, own, pair in _pairs(rule, here, ring, shape, source):
      operands = qs[a], ks[b], vs[b], dos[a], lses[a], deltas[a]
      dq, dk, dv = module.backward(*operands, own, pair, interpret=interpret)
      dqs[a], dks[b], dvs[b] = dqs[a] + dq, dks[b] + dk, dvs[b] + dv
    # They travel with their keys, one hop more than these: home.
    return dqs, *ring.pass_on((dks, dvs))

  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  zeros = lambda x: [jnp.zeros(part.shape, wide) for part in cut(x)]
  keys = k_BTKH, v_BTKH, limits.kv_segments_BS
  sums = zeros(q_BTKGH), zeros(k_BTKH), zeros(v_BTKH)
  dqs, dks, dvs = ring.walk(attend, keys, sums)
  whole = lambda parts: jnp.concatenate(parts, 1).astype(q_BTKGH.dtype)
  return whole(dqs), whole(dks), whole(dvs), None


_attend.defvjp(_attend_forward, _attend_backward)


def _hops(n: int) -> tuple[list, list]:
  """Returns (from, to) of the even and the odd chunks of all n devices."""
  home = lambda chunk: min(chunk, 2 * n - 1 - chunk)
  hop = lambda odd: [(d, home(2 * d + odd)) for d in range(n)]
  return hop(0), hop(1)


def to_zigzag(x: jax.Array, axis_name: str) -> jax.Array:
  """Returns a contiguous layout's [B, T, ..] in a zigzag's; inside shard_map.

  Raises:
    ValueError: T, of one device, is odd.
  """
  even, odd = _hops(lax.axis_size(axis_name))
  front, back = _halves(x)
  front = lax.ppermute(front, axis_name, even)
  back = lax.ppermute(back, axis_name, odd)
  return _ordered(front, back, axis_name)


def from_zigzag(x: jax.Array, axis_name: str) -> jax.Array:
  """Returns a zigzag's [B, T, ..] in a contiguous layout; inside shard_map."""
  even, odd = _hops(lax.axis_size(axis_name))
  back = lambda hops: [(to, start) for start, to in hops]
  first, second = _halves(x)
  front, last = _halves(_ordered(first, second, axis_name))
  front = lax.ppermute(front, axis_name, back(even))
  last = lax.ppermute(last, axis_name, back(odd))
  return jnp.concatenate([front, last], 1)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  if x.shape[1] % 2:
    raise ValueError(f"x has shape {x.shape}; a zigzag's T is even")
  front, back = jnp.split(x, 2, axis=1)
  return front, back


def _ordered(a: jax.Array, b: jax.Array, axis_name: str) -> jax.Array:
  """Joins a and b; on odd devices b comes first, whose front chunk is odd."""
  odd = lax.axis_index(axis_name) % 2 == 1
  first, second = jnp.where(odd, b, a), jnp.where(odd, a, b)
  return jnp.concatenate([first, second], 1)
