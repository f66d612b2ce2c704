"""Which keys a query may look at: the one meaning that all kernels share."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Blocks(NamedTuple):
  """Tile sizes in tokens: queries and keys, forward and backward."""

  q: int
  kv: int
  q_backward: int
  kv_backward: int


@dataclasses.dataclass(frozen=True)
class Rule:
  """The static half of an attention: hashable, a part of the compile key.

  Query `t` stands at position `q_offset + t`, key `s` at position `s`. A
  `window` of w shows a query its own position and the w - 1 before it. Scores
  are softcap * tanh(scale * q k^T / softcap).
  """

  causal: bool
  scale: float
  softcap: float | None = None
  window: int | None = None
  q_offset: int = 0
  blocks: Blocks | None = None


class Limits(NamedTuple):
  """The traced half; what is None costs nothing.

  `window_B` and `q_offset_B` take the place of the rule's own; segments are
  given for both sides or none, and only equal ones see each other.
  """

  window_B: jax.Array | None = None
  q_offset_B: jax.Array | None = None
  q_segments_BT: jax.Array | None = None
  kv_segments_BS: jax.Array | None = None


def window_of(rule: Rule, limits: Limits) -> Any:
  """Returns the window: None, an int or int32 [B]."""
  return rule.window if limits.window_B is None else limits.window_B


def q_offset_of(rule: Rule, limits: Limits) -> Any:
  """Returns the offset of queries: an int or int32 [B]."""
  return rule.q_offset if limits.q_offset_B is None else limits.q_offset_B


def inside(q_at: Any, k_at: Any, causal: bool, window: Any) -> Any:
  """Says which positions see which; the arrays broadcast. None: all do."""
  seen = None
  if causal:
    seen = k_at <= q_at
  if window is not None:
    near = k_at > q_at - window
    seen = near if seen is None else seen & near
  return seen


def visible(T: int, S: int, rule: Rule, limits: Limits) -> jax.Array:
  """Returns mask_BTS (B may be 1): which keys each query may look at."""
  column = lambda x: jnp.atleast_1d(jnp.asarray(x))[:, None, None]
  q_BT1 = column(q_offset_of(rule, limits)) + jnp.arange(T)[None, :, None]
  k_11S = jnp.arange(S)[None, None, :]
  window = window_of(rule, limits)
  window_B11 = None if window is None else column(window)
  seen_BTS = inside(q_BT1, k_11S, rule.causal, window_B11)
  if seen_BTS is None:
    seen_BTS = jnp.ones((1, T, S), bool)
  if limits.q_segments_BT is not None and limits.kv_segments_BS is not None:
    q_BT1 = limits.q_segments_BT[:, :, None]
    seen_BTS = seen_BTS & (q_BT1 == limits.kv_segments_BS[:, None, :])
  return seen_BTS


def _clip(x: Any, low: Any, high: Any) -> Any:
  """Bounds x, keeping plain ints plain, as a static grid needs them."""
  if all(isinstance(v, int) for v in (x, low, high)):
    return min(max(x, low), high)
  return jnp.clip(x, low, high)


def kv_range(
  first_q: Any, last_q: Any, window: Any, q_offset: Any, causal: bool, S: int
) -> tuple[Any, Any]:
  """Returns [low, high) of the keys that queries first_q..last_q may see.

  Works on ints and on traced scalars; low == high where there are none.
  """
  low, high = 0, S
  if causal:
    high = _clip(last_q + q_offset + 1, 0, S)
  if window is not None:
    low = _clip(first_q + q_offset - window + 1, 0, high)
  return low, high


def q_range(
  first_kv: Any, last_kv: Any, window: Any, q_offset: Any, causal: bool, T: int
) -> tuple[Any, Any]:
  """Returns [low, high) of the queries that may see keys first_kv..last_kv."""
  low, high = 0, T
  if window is not None:
    high = _clip(last_kv + window - q_offset, 0, T)
  if causal:
    low = _clip(first_kv - q_offset, 0, high)
  return low, high
