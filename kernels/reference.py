"""The jnp meaning of every kernel: the oracle, readable first."""

import jax
import jax.numpy as jnp


def visible(
  T: int,
  S: int,
  *,
  causal: bool,
  window: jax.Array | int | None,
  q_offset: jax.Array | int,
) -> jax.Array:
  """Returns mask_BTS (B may be 1): which keys each query may look at.

  Query `t` stands at position `q_offset + t`, key `s` at position `s`. A window
  of `w` shows a query its own position and the `w - 1` before it. `window` and
  `q_offset` are scalars or [B], traced or not.
  """
  offset_B11 = jnp.atleast_1d(jnp.asarray(q_offset))[:, None, None]
  q_BT1 = offset_B11 + jnp.arange(T)[None, :, None]
  k_11S = jnp.arange(S)[None, None, :]
  mask_BTS = jnp.broadcast_to(k_11S >= 0, (q_BT1.shape[0], T, S))
  if causal:
    mask_BTS &= k_11S <= q_BT1
  if window is not None:
    window_B11 = jnp.atleast_1d(jnp.asarray(window))[:, None, None]
    mask_BTS = mask_BTS & (k_11S > q_BT1 - window_B11)
  return mask_BTS


def flash_attention(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool = True,
  window: jax.Array | int | None = None,
  softcap: float | None = None,
  scale: float | None = None,
  q_segments_BT: jax.Array | None = None,
  kv_segments_BS: jax.Array | None = None,
  q_offset: jax.Array | int = 0,
) -> jax.Array:
  """Returns o_BTKGH: softmax(q k^T) v, each KV head serving G query heads.

  Scores and the softmax are kept in fp32 (fp64 for fp64 inputs); `scale` is
  H**-0.5 unless given. A query that sees no key gets exactly 0. Raises
  ValueError where the segments of one side only are given.
  """
  if (q_segments_BT is None) != (kv_segments_BS is None):
    raise ValueError("give the segments of both queries and keys, or of none")
  T, H = q_BTKGH.shape[1], q_BTKGH.shape[-1]
  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  s_BKGTS = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=wide
  )
  s_BKGTS *= H**-0.5 if scale is None else scale
  if softcap is not None:
    s_BKGTS = softcap * jnp.tanh(s_BKGTS / softcap)
  mask_BTS = visible(
    T, k_BSKH.shape[1], causal=causal, window=window, q_offset=q_offset
  )
  if q_segments_BT is not None and kv_segments_BS is not None:
    mask_BTS &= q_segments_BT[:, :, None] == kv_segments_BS[:, None, :]
  mask_B11TS = mask_BTS[:, None, None]
  s_BKGTS = jnp.where(mask_B11TS, s_BKGTS, jnp.finfo(wide).min)
  p_BKGTS = jnp.exp(
    s_BKGTS - jax.lax.stop_gradient(s_BKGTS.max(-1, keepdims=True))
  )
  p_BKGTS = jnp.where(mask_B11TS, p_BKGTS, 0)
  sum_BKGT1 = p_BKGTS.sum(-1, keepdims=True)
  p_BKGTS /= jnp.where(sum_BKGT1 == 0, 1, sum_BKGT1)
  o_BTKGH = jnp.einsum(
    "BKGTS,BSKH->BTKGH",
    p_BKGTS.astype(v_BSKH.dtype),
    v_BSKH,
    preferred_element_type=wide,
  )
  return o_BTKGH.astype(q_BTKGH.dtype)
