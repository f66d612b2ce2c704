"""Attention for training and prefill: checks, derivative, one call for all.

The kernels (one module an `impl`) compute `forward` and `backward` alone. With
delta = sum_H(do * o) - dlse, and p = exp(s - lse), the gradient of the scores
is ds = p * (do v^T - delta): FlashAttention-2 (2307.08691), appendix, with the
cotangent of lse beside it.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernels import arguments
from kernels.mask import Blocks, Limits, Rule
from kernels.softmax import merge

# Imported when first asked for: a laptop has no use for a GPU's compiler.
IMPLEMENTATIONS = {
  "reference": "kernels.reference",
  "xla": "kernels.chunked",
  "tpu": "kernels.attention_tpu",
  "hopper": "kernels.attention_hopper",
}

# What padding's segment 0 becomes, of queries and of keys: never equal, and
# beyond all others, so that a tile that ends in padding spans few segments.
_PADDING = (1 << 30, (1 << 30) + 1)


def flash_attention(
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  *,
  causal: bool = True,
  window: jax.Array | int | None = None,
  softcap: float | None = None,
  scale: float | None = None,
  sinks: jax.Array | None = None,
  q_segments_BT: jax.Array | None = None,
  kv_segments_BS: jax.Array | None = None,
  q_offset: jax.Array | int = 0,
  return_lse: bool = False,
  blocks: Blocks | None = None,
  impl: str | None = None,
  interpret: Any = False,
) -> Any:
  """Returns o_BTKGH = softmax(q k^T) v, each KV head serving G query heads.

  Query `t` stands at position `q_offset + t`, key `s` at position `s`; a
  `window` of w shows a query its own position and the w - 1 before it. Both are
  ints, or int32 scalars or [B], traced or not; offsets are below 2**29. Without
  `causal` a query also sees all that stands behind it, window or not. Only
  equal segments see each other; segment 0 is padding, whose content reaches
  nothing; ids are below 2**30. `scale` is H**-0.5 unless given; `softcap`
  bounds scores to softcap * tanh(s / softcap). `sinks` [K, G] are logits of a
  key without a value. A query that sees no key (and has no sink), and one of
  padding, gets o = 0, lse = -inf and no gradient.

  Products of bf16 and fp16 accumulate in fp32, those of fp32 are exact to fp32;
  scores and softmax are fp32 (fp64 for fp64). With `return_lse` returns
  (o_BTKGH, lse_BTKG), the natural log of each query's sum of exponentials; both
  have gradients.

  `impl` is "reference", "xla", "tpu" (bf16, fp32) or "hopper" (bf16, fp16);
  None asks the platform. `blocks` are its tile sizes, `interpret` how Pallas is
  interpreted.

  Raises:
    ValueError: an argument is of a wrong shape, dtype or range; names it.
  """
  check(q_BTKGH, k_BSKH, v_BSKH, q_segments_BT, kv_segments_BS, sinks)
  arguments.softcap_and_blocks(softcap, blocks)
  nothing = 0 in (*q_BTKGH.shape, k_BSKH.shape[1])
  module = implementation("reference" if nothing else impl, q_BTKGH.dtype)
  B, H = q_BTKGH.shape[0], q_BTKGH.shape[-1]
  static_window, window_B = arguments.window_of(window, B)
  static_offset, q_offset_B = arguments.offset_of(q_offset, B)
  rule = Rule(
    causal,
    H**-0.5 if scale is None else scale,
    softcap,
    static_window,
    static_offset,
    blocks,
  )
  limits = Limits(window_B, q_offset_B, q_segments_BT, kv_segments_BS)
  attend = functools.partial(_attend, module, rule, interpret)
  o_BTKGH, lse_BTKG = guarded(attend, q_BTKGH, k_BSKH, v_BSKH, limits, sinks)
  return (o_BTKGH, lse_BTKG) if return_lse else o_BTKGH


def guarded(
  attend: Callable[..., Any],
  q_BTKGH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  limits: Limits,
  sinks: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns attend(q, k, v, limits), padding taken out and sinks put in."""
  ids_BT, ids_BS = limits.q_segments_BT, limits.kv_segments_BS
  if ids_BT is None or ids_BS is None:
    return _with_sinks(sinks, *attend(q_BTKGH, k_BSKH, v_BSKH, limits))
  real_BT, real_BS = ids_BT > 0, ids_BS > 0
  marked = lambda real, ids, mark: jnp.where(real, ids.astype(jnp.int32), mark)
  limits = limits._replace(
    q_segments_BT=marked(real_BT, ids_BT, _PADDING[0]),
    kv_segments_BS=marked(real_BS, ids_BS, _PADDING[1]),
  )
  k_BSKH, v_BSKH = _kept(k_BSKH, real_BS), _kept(v_BSKH, real_BS)
  q_BTKGH = _kept(q_BTKGH, real_BT)
  o_BTKGH, lse_BTKG = attend(q_BTKGH, k_BSKH, v_BSKH, limits)
  o_BTKGH, lse_BTKG = _with_sinks(sinks, o_BTKGH, lse_BTKG)
  # Whatever the cotangents of padding are, they end here.
  return _kept(o_BTKGH, real_BT), _kept(lse_BTKG, real_BT, -jnp.inf)


def _with_sinks(sinks: Any, o_BTKGH: Any, lse_BTKG: Any) -> tuple[Any, Any]:
  """Merges in a key without a value, whose logit each head has its own."""
  if sinks is None:
    return o_BTKGH, lse_BTKG
  sink_BTKG = jnp.broadcast_to(sinks[None, None], lse_BTKG.shape)
  return merge(o_BTKGH, lse_BTKG, jnp.zeros_like(o_BTKGH), sink_BTKG)


def implementation(impl: str | None, dtype: Any) -> Any:
  """Returns the module of an `impl`, or of this platform where it is None."""
  name = arguments.choose(impl, tuple(IMPLEMENTATIONS), dtype)
  return importlib.import_module(IMPLEMENTATIONS[name])


def _kept(x: jax.Array, real: jax.Array, other: float = 0) -> jax.Array:
  """Puts `other` for what is padding's, whatever it is: NaN times 0 is NaN."""
  return jnp.where(jnp.expand_dims(real, range(real.ndim, x.ndim)), x, other)


def check(
  q: Any, k: Any, v: Any, q_segments: Any, kv_segments: Any, sinks: Any
) -> None:
  """Raises ValueError naming what does not fit, and both shapes."""
  if q.ndim != 5 or k.ndim != 4:
    raise ValueError(
      f"q is [B, T, K, G, H] and k [B, S, K, H]; they are {q.shape}, {k.shape}"
    )
  B, T, K, G, H = q.shape
  arguments.shaped("k", k, (B, k.shape[1], K, H), "q", q)
  arguments.shaped("v", v, k.shape, "k", k)
  arguments.alike("q", q, k=k, v=v)
  if (q_segments is None) != (kv_segments is None):
    raise ValueError(
      "give both q_segments_BT and kv_segments_BS, or neither of them"
    )
  if q_segments is not None and kv_segments is not None:
    arguments.shaped("q_segments_BT", q_segments, (B, T), "q", q)
    arguments.shaped("kv_segments_BS", kv_segments, k.shape[:2], "k", k)
    arguments.integers("q_segments_BT", q_segments)
    arguments.integers("kv_segments_BS", kv_segments)
  if sinks is not None:
    arguments.shaped("sinks", sinks, (K, G), "q", q)
    arguments.floating("sinks", sinks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(module, rule, interpret, q_BTKGH, k_BSKH, v_BSKH, limits):
  return module.forward(
    q_BTKGH, k_BSKH, v_BSKH, rule, limits, interpret=interpret
  )


def _attend_forward(module, rule, interpret, q_BTKGH, k_BSKH, v_BSKH, limits):
  o_BTKGH, lse_BTKG = module.forward(
    q_BTKGH, k_BSKH, v_BSKH, rule, limits, interpret=interpret
  )
  saved = q_BTKGH, k_BSKH, v_BSKH, limits, o_BTKGH, lse_BTKG
  return (o_BTKGH, lse_BTKG), saved


def delta(
  o_BTKGH: jax.Array,
  lse_BTKG: jax.Array,
  do_BTKGH: jax.Array,
  dlse_BTKG: jax.Array,
) -> jax.Array:
  """Returns sum_H(do * o) - dlse, all that a score's gradient asks of a row."""
  wide = dlse_BTKG.dtype
  # Of a row that sees nothing, lse = -inf has no slope.
  dlse_BTKG = jnp.where(jnp.isneginf(lse_BTKG), 0, dlse_BTKG)
  return (do_BTKGH.astype(wide) * o_BTKGH.astype(wide)).sum(-1) - dlse_BTKG


def _attend_backward(module, rule, interpret, saved, cotangents):
  q_BTKGH, k_BSKH, v_BSKH, limits, o_BTKGH, lse_BTKG = saved
  do_BTKGH, dlse_BTKG = cotangents
  gradients = module.backward(
    q_BTKGH,
    k_BSKH,
    v_BSKH,
    do_BTKGH,
    lse_BTKG,
    delta(o_BTKGH, lse_BTKG, do_BTKGH, dlse_BTKG),
    rule,
    limits,
    interpret=interpret,
  )
  return *gradients, None


_attend.defvjp(_attend_forward, _attend_backward)
