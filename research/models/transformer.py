"""One decoder for training, scoring, rollout, search, serving and export.

Parameters of all layers are stacked on N. Without a cache the layer runs under
`nn.scan`; with one it runs in a Python loop, one cache entry a layer, because a
cache carried through a scan is copied whole at each step.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from research import sharding
from research.models import attend, quantize
from research.models import rope as rotary
from research.models.config import Model
from research.models.product import product, weight

FEATURES = ("hidden", "q", "k", "v")

# Layers that are not scanned but written out: a loop keeps what the backward
# pass wants in arrays of all layers, and copies it in and out. With few that
# costs more than a longer program does.
FEW = 4

_REMAT = {
  "elementwise": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "everything": jax.checkpoint_policies.nothing_saveable,
}


@struct.dataclass
class Cache:
  """One layer's keys and values; slot `s` holds the token at position `s`."""

  k_BSKH: jax.Array
  v_BSKH: jax.Array


class Norm(nn.Module):
  """RMSNorm (1910.07467) over the last axis, in fp32 or wider."""

  config: Model
  axis: str = "D"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x scaled to unit mean square, times the learned scale."""
    offset = self.config.unit_offset
    init = nn.initializers.zeros if offset else nn.initializers.ones
    boxed = nn.with_logical_partitioning(init, (self.axis,))
    size = self.config.sizes[self.axis]
    scale: Any = self.param(f"scale_{self.axis}", boxed, [size], jnp.float32)
    wide = jnp.promote_types(jnp.float32, x.dtype)
    y = x.astype(wide)
    mean = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(mean + self.config.norm_eps)
    scale = scale.astype(wide) + offset
    return (y * jnp.expand_dims(scale, range(x.ndim - 1))).astype(x.dtype)


def _write(cache: Cache, k_BTKH: Any, v_BTKH: Any, start_B: Any) -> Cache:
  put = jax.vmap(lambda c, x, i: jax.lax.dynamic_update_slice(c, x, (i, 0, 0)))
  return Cache(
    put(cache.k_BSKH, k_BTKH.astype(cache.k_BSKH.dtype), start_B),
    put(cache.v_BSKH, v_BTKH.astype(cache.v_BSKH.dtype), start_B),
  )


class Attention(nn.Module):
  """Grouped-query attention with rotary positions."""

  config: Model
  mesh: Mesh | None = None

  def _project(self, y_BTD: jax.Array) -> tuple[jax.Array, ...]:
    q_BTKGH = product(self, "q_DKGH", y_BTD)
    k_BTKH = product(self, "k_DKH", y_BTD)
    v_BTKH = product(self, "v_DKH", y_BTD)
    if self.config.qkv_bias:
      zeros = nn.initializers.zeros
      q_BTKGH += weight(self, "qbias_KGH", "", zeros)[None, None]
      k_BTKH += weight(self, "kbias_KH", "", zeros)[None, None]
      v_BTKH += weight(self, "vbias_KH", "", zeros)[None, None]
    if self.config.qk_norm:
      q_BTKGH = Norm(self.config, "H", name="q_norm")(q_BTKGH)
      k_BTKH = Norm(self.config, "H", name="k_norm")(k_BTKH)
    return q_BTKGH, k_BTKH, v_BTKH

  @nn.compact
  def __call__(
    self, y_BTD, turn, window, positions_BT, segments_BT, cache
  ) -> tuple[jax.Array, Cache | None, dict[str, jax.Array]]:
    """Returns what the heads write, [B, T, D], the cache with y in it, and q, k
    and v as they meet.
    """
    cfg = self.config
    q_BTKGH, k_BTKH, v_BTKH = self._project(y_BTD)
    cos_BTh, sin_BTh = turn
    k_BTKH = rotary.rotate(k_BTKH, cos_BTh[:, :, None], sin_BTh[:, :, None])
    cos, sin = cos_BTh[:, :, None, None], sin_BTh[:, :, None, None]
    q_BTKGH = rotary.rotate(q_BTKGH, cos, sin)
    how = {"softcap": cfg.attention_softcap, "scale": cfg.attention_scale}
    if cache is None:
      o_BTKGH = attend.over_itself(
        self.mesh, q_BTKGH, k_BTKH, v_BTKH, segments_BT, window, **how
      )
    else:
      start_B = positions_BT[:, 0]
      cache = _write(cache, k_BTKH, v_BTKH, start_B)
      held = cache.k_BSKH.astype(cfg.dtype), cache.v_BSKH.astype(cfg.dtype)
      o_BTKGH = attend.over_cache(
        self.mesh, q_BTKGH, *held, start_B, window, **how
      )
    seen = {"q": q_BTKGH, "k": k_BTKH, "v": v_BTKH}
    return product(self, "o_KGHD", o_BTKGH), cache, seen


class Mlp(nn.Module):
  """A gated feed-forward: SwiGLU or GeGLU (2002.05202)."""

  config: Model
  mesh: Mesh | None = None

  @nn.compact
  def __call__(self, y_BTD: jax.Array) -> jax.Array:
    """Returns act(y gate) * (y up), brought back to D.

    The backward pass computes act and its slope anew: kept, they are as wide as
    what they are of.
    """
    cfg = self.config
    act = {"silu": nn.silu, "gelu": nn.gelu}[cfg.activation]
    gate_BTF = product(self, "gate_DF", y_BTD)
    up_BTF = product(self, "up_DF", y_BTD)
    gated = lambda gate, up: act(gate) * up
    if cfg.remat == "nothing":
      gated = jax.checkpoint(gated, prevent_cse=cfg.layers <= FEW)
    z_BTF = sharding.constrain(gated(gate_BTF, up_BTF), "BTF", self.mesh)
    return product(self, "down_FD", z_BTF)


class Layer(nn.Module):
  """Attention, then the feed-forward, each normed and added to the stream."""

  config: Model
  mesh: Mesh | None = None
  features: tuple[str, ...] = ()

  @nn.compact
  def __call__(
    self, x_BTD, own, turns, positions_BT, segments_BT, cache
  ) -> tuple[jax.Array, Any]:
    """Returns the stream, and the cache; without one, the features.

    `own` is this layer's (kind, window): which of the rotations `turns` it
    uses, and how far it sees.
    """
    cfg, mesh = self.config, self.mesh
    kind, window = own
    turn = jax.tree.map(lambda t: t[kind], turns)
    norm = lambda name: Norm(cfg, name=name)
    y_BTD = norm("attention_norm")(x_BTD)
    y_BTD, cache, seen = Attention(cfg, mesh, name="attention")(
      y_BTD, turn, window, positions_BT, segments_BT, cache
    )
    if cfg.post_norm:
      y_BTD = norm("attention_post_norm")(y_BTD)
    x_BTD = sharding.constrain(x_BTD + y_BTD, "BTD", mesh)
    y_BTD = Mlp(cfg, mesh, name="mlp")(norm("mlp_norm")(x_BTD))
    if cfg.post_norm:
      y_BTD = norm("mlp_post_norm")(y_BTD)
    x_BTD = sharding.constrain(x_BTD + y_BTD, "BTD", mesh)
    if cache is not None:
      return x_BTD, cache
    seen["hidden"] = x_BTD
    return x_BTD, {name: seen[name] for name in self.features}


def _turns(cfg: Model, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (cos, sin), each [kinds, B, T, h]: kind 0 global, kind 1 local."""
  kinds = (cfg.rope, cfg.local_rope) if cfg.local_rope else (cfg.rope,)
  wide = jnp.promote_types(jnp.float32, cfg.dtype)
  freqs = np.stack([rotary.frequencies(r, cfg.head_dim) for r in kinds])
  sizes = np.array([rotary.magnitude(r) for r in kinds])[:, None, None, None]
  freqs = jnp.asarray(freqs, wide)[:, None, None]
  angles = positions_BT[None, :, :, None].astype(wide) * freqs
  sizes = jnp.asarray(sizes, wide)
  return jnp.cos(angles) * sizes, jnp.sin(angles) * sizes


def _own(cfg: Model, S: int) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns each layer's (kind_N, window_N); a global layer's window is S.

  There are no windows where no layer has one: then the mask is known ahead.
  """
  local_N = np.array([cfg.is_local(n) for n in range(cfg.layers)])
  kind_N = (local_N * (cfg.local_rope is not None)).astype(np.int32)
  if cfg.window is None:
    return kind_N, None
  return kind_N, np.where(local_N, cfg.window, S).astype(np.int32)


class Transformer(nn.Module):
  """The decoder up to the final norm; `unembedding` gives the rest."""

  config: Model
  mesh: Mesh | None = None

  @nn.compact
  def __call__(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    cache: tuple[Cache, ...] | None = None,
    features: Sequence[str] = (),
  ) -> tuple[jax.Array, tuple[Cache, ...] | None, dict[str, Any]]:
    """Returns (hidden_BTD, cache, features).

    With a cache, the T tokens of a row are written at its own positions, which
    must be consecutive, and attend to all that stands before them; segments
    are then not used. Features are of each layer: "hidden" is the stream behind
    it, hidden_NBTD; "q", "k" and "v" are as they meet, q_NBTKGH and so on.
    """
    cfg = self.config
    if unknown := set(features) - set(FEATURES):
      raise ValueError(f"no features {sorted(unknown)}; there are {FEATURES}")
    # logits are O(1) when tied to an embedding of variance 1/D
    init = nn.initializers.truncated_normal(cfg.width**-0.5)
    embed_VD = weight(self, "embed_VD", "", init)
    if not cfg.tied:
      weight(self, "unembed_VD", "D")
    x_BTD = jnp.take(embed_VD, tokens_BT, axis=0)
    if cfg.embed_scale:
      x_BTD *= jnp.asarray(cfg.width**0.5, x_BTD.dtype)
    x_BTD = sharding.constrain(x_BTD, "BTD", self.mesh)
    turns = _turns(cfg, positions_BT)
    if cache is None:
      x_BTD, kept = self._scan(
        x_BTD, turns, positions_BT, segments_BT, tuple(features)
      )
    else:
      if features:
        raise ValueError("features are not kept while decoding with a cache")
      x_BTD, cache = self._unroll(x_BTD, turns, positions_BT, cache)
      kept = {}
    return Norm(cfg, name="final_norm")(x_BTD), cache, kept

  def _scan(self, x_BTD, turns, positions_BT, segments_BT, features):
    cfg = self.config
    layer, few = Layer, cfg.layers <= FEW
    if cfg.remat != "nothing":
      # Within a loop nothing is recomputed that another layer has.
      layer = nn.remat(Layer, policy=_REMAT[cfg.remat], prevent_cse=few)
    broadcast = (nn.broadcast,) * 4  # turns, positions, segments, cache
    scanned = nn.scan(
      layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, *broadcast),  # pyright: ignore[reportArgumentType]
      length=cfg.layers,
      unroll=cfg.layers if few else 1,
      metadata_params={nn.PARTITION_NAME: "N"},
    )
    own = jax.tree.map(jnp.asarray, _own(cfg, x_BTD.shape[1]))
    return scanned(cfg, self.mesh, features, name="layers")(
      x_BTD, own, turns, positions_BT, segments_BT, None
    )

  def _unroll(self, x_BTD, turns, positions_BT, cache):
    cfg = self.config
    stacked = self.variables["params"]["layers"]
    layer = Layer(cfg, self.mesh, parent=None)
    kind_N, window_N = _own(cfg, cache[0].k_BSKH.shape[1])
    entries = []
    for n in range(cfg.layers):
      params = jax.tree.map(lambda p, n=n: p[n], stacked)
      own = (int(kind_N[n]), None if window_N is None else int(window_N[n]))
      x_BTD, entry = layer.apply(
        {"params": params}, x_BTD, own, turns, positions_BT, None, cache[n]
      )
      entries.append(entry)
    return x_BTD, tuple(entries)


def _boxed(config: Model, key: jax.Array) -> Any:
  one_11 = jnp.zeros((1, 1), jnp.int32)
  return Transformer(config).init(key, one_11, one_11, one_11)["params"]


@functools.partial(jax.jit, static_argnums=0)
def init(config: Model, key: jax.Array) -> Any:
  """Returns fresh fp32 parameters."""
  return nn.unbox(_boxed(config, key))  # its forward pass is dead code here


def abstract(config: Model) -> Any:
  """Returns the boxed shapes and axis letters of the parameters."""
  return jax.eval_shape(functools.partial(_boxed, config), jax.random.key(0))


def count(config: Model) -> int:
  """Returns how many parameters the decoder has."""
  leaves = jax.tree.leaves(nn.unbox(abstract(config)))
  return sum(int(np.prod(x.shape)) for x in leaves)


def apply(
  config: Model,
  params: Any,
  tokens_BT: jax.Array,
  positions_BT: jax.Array,
  segments_BT: jax.Array | None = None,
  cache: tuple[Cache, ...] | None = None,
  features: Sequence[str] = (),
  *,
  mesh: Mesh | None = None,
) -> tuple[jax.Array, tuple[Cache, ...] | None, dict[str, jax.Array]]:
  """Runs the decoder; see `Transformer.__call__`.

  Raises:
    ValueError: the dtype is float64, and jax would compute in fp32 instead.
  """
  if jax.dtypes.canonicalize_dtype(config.dtype) != config.dtype:
    raise ValueError(
      f"model: dtype is {config.dtype}, which needs JAX_ENABLE_X64=1; without "
      "it jax computes in fp32"
    )
  return Transformer(config, mesh).apply(  # type: ignore[return-value]
    {"params": params}, tokens_BT, positions_BT, segments_BT, cache, features
  )


def in_compute_dtype(config: Model, params: Any) -> Any:
  """Returns the parameters as the forward uses them, cast once.

  Norm scales stay in fp32, as `Norm` reads them, and so do those of what is
  quantised.
  """

  def one(path, p):
    kept = str(path[-1].key).startswith("scale") or quantize.is_quantised(p)
    return p if kept else p.astype(config.dtype)

  return jax.tree_util.tree_map_with_path(
    one, params, is_leaf=quantize.is_quantised
  )


def unembedding(config: Model, params: Any) -> jax.Array:
  """Returns unembed_VD in the compute dtype: the embedding's own if tied."""
  name = "embed_VD" if config.tied else "unembed_VD"
  return params[name].astype(config.dtype)


def empty_cache(config: Model, rows: int, slots: int) -> tuple[Cache, ...]:
  """Returns a cache of zeros, one entry a layer, in the compute dtype."""
  shape = (rows, slots, config.kv_heads, config.head_dim)
  zeros = lambda: jnp.zeros(shape, config.dtype)
  return tuple(Cache(zeros(), zeros()) for _ in range(config.layers))
