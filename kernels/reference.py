"""Attention's meaning in plain jnp: the oracle, readable first."""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.mask import Limits, Rule, visible
from kernels.softmax import capped, finite


def _scores(q_BTKGH: jax.Array, k_BSKH: jax.Array, rule: Rule) -> jax.Array:
  """Returns the scores before the mask and the softcap, in fp32 or wider."""
  wide = jnp.promote_types(jnp.float32, q_BTKGH.dtype)
  return rule.scale * jnp.einsum(
    "BTKGH,BSKH->BKGTS",
    q_BTKGH,
    k_BSKH,
    preferred_element_type=wide,
    precision="highest",
  )


def forward(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  rule: Rule,
  limits: Limits,
  interpret: Any = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns (o_BTKGH, lse_BTKG); see `kernels.flash_attention`."""
  del interpret
  T, S = q_BTKGH.shape[1], k_BSKH.shape[1]
  seen_BTS = visible(T, S, rule, limits)[:, None, None]
  s_BKGTS = capped(_scores(q_BTKGH, k_BSKH, rule), rule.softcap)
  s_BKGTS = jnp.where(seen_BTS, s_BKGTS, -jnp.inf)
  lse_BKGT = jax.nn.logsumexp(s_BKGTS, axis=-1)
  p_BKGTS = _weights(s_BKGTS, lse_BKGT)
  o_BTKGH = jnp.einsum(
    "BKGTS,BSKH->BTKGH",
    p_BKGTS.astype(v_BSKH.dtype),
    v_BSKH,
    preferred_element_type=s_BKGTS.dtype,
    precision="highest",
  )
  return o_BTKGH.astype(q_BTKGH.dtype), lse_BKGT.transpose(0, 3, 1, 2)


def _weights(s_BKGTS: jax.Array, lse_BKGT: jax.Array) -> jax.Array:
  """exp(s - lse), and 0 where nothing is seen and lse is -inf."""
  return jnp.exp(s_BKGTS - finite(lse_BKGT)[..., None])


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
  """Returns (dq_BTKGH, dk_BSKH, dv_BSKH); see `kernels.attention`."""
  del interpret
  T, S = q_BTKGH.shape[1], k_BSKH.shape[1]
  seen_BTS = visible(T, S, rule, limits)[:, None, None]
  raw_BKGTS = _scores(q_BTKGH, k_BSKH, rule)
  s_BKGTS = jnp.where(seen_BTS, capped(raw_BKGTS, rule.softcap), -jnp.inf)
  p_BKGTS = _weights(s_BKGTS, lse_BTKG.transpose(0, 2, 3, 1))
  wide, low = s_BKGTS.dtype, q_BTKGH.dtype

  def dot(spec, x, y):
    return jnp.einsum(
      spec, x, y, preferred_element_type=wide, precision="highest"
    )

  dp_BKGTS = dot("BTKGH,BSKH->BKGTS", do_BTKGH, v_BSKH)
  delta_BKGT = delta_BTKG.transpose(0, 2, 3, 1)
  ds_BKGTS = rule.scale * p_BKGTS * (dp_BKGTS - delta_BKGT[..., None])
  if rule.softcap is not None:
    ds_BKGTS *= 1 - jnp.tanh(raw_BKGTS / rule.softcap) ** 2
  p_BKGTS, ds_BKGTS = p_BKGTS.astype(low), ds_BKGTS.astype(low)
  dq_BTKGH = dot("BKGTS,BSKH->BTKGH", ds_BKGTS, k_BSKH)
  dk_BSKH = dot("BKGTS,BTKGH->BSKH", ds_BKGTS, q_BTKGH)
  dv_BSKH = dot("BKGTS,BTKGH->BSKH", p_BKGTS, do_BTKGH)
  return dq_BTKGH.astype(low), dk_BSKH.astype(low), dv_BSKH.astype(low)
