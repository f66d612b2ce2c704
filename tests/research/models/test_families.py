"""The decoder against a plain NumPy one in fp64, written from the HF models.

The oracle knows nothing of `Model`: what a family does is spelt out beside its
switches, as arguments of `forward`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import kernels
from research.models import rope, transformer
from research.models.config import Model, Rope

T = 24


def frequencies(dim, theta, kind="default", **p):
  """HF's inv_freq, one loop a formula, and its attention factor."""
  inv = [1.0 / theta ** (i / dim) for i in range(0, dim, 2)]
  if kind == "default":
    return inv, 1.0
  factor = p["factor"]
  if kind == "linear":
    return [f / factor for f in inv], 1.0
  if kind == "llama3":
    return [_llama3(f, **p) for f in inv], 1.0
  assert kind == "yarn"
  find = lambda turns: (
    dim
    * math.log(p["original"] / (turns * 2 * math.pi))
    / (2 * math.log(theta))
  )
  low = max(math.floor(find(p["fast"])), 0)
  high = min(math.ceil(find(p["slow"])), dim - 1)
  mixed = []
  for i, f in enumerate(inv):
    ramp = min(max((i - low) / (high - low), 0.0), 1.0)
    extrapolated = 1.0 - ramp
    mixed.append(f / factor * (1 - extrapolated) + f * extrapolated)
  return mixed, 0.1 * math.log(factor) + 1.0


def _llama3(f, factor, original, low, high):
  wavelength = 2 * math.pi / f
  if wavelength > original / low:
    return f / factor
  if wavelength < original / high:
    return f
  smooth = (original / wavelength - low) / (high - low)
  return (1 - smooth) * f / factor + smooth * f


def rms(x, w, eps, plus_one):
  y = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
  return y * (1.0 + w if plus_one else w)


def turn(x, freqs):
  """x[T, heads, H] rotated by HF's rotate_half."""
  inv, factor = freqs
  angle = np.outer(np.arange(len(x)), inv)
  angle = np.concatenate([angle, angle], -1)[:, None]
  half = x.shape[-1] // 2
  rotated = np.concatenate([-x[..., half:], x[..., :half]], -1)
  return x * np.cos(angle) * factor + rotated * np.sin(angle) * factor


def attend(y, w, freqs, window, *, scale, cap, eps, plus_one, bias, qk_norm):
  D, K, G, H = w["q_DKGH"].shape
  q = y @ w["q_DKGH"].reshape(D, K * G * H)
  k = y @ w["k_DKH"].reshape(D, K * H)
  v = y @ w["v_DKH"].reshape(D, K * H)
  if bias:
    q = q + w["qbias_KGH"].ravel()
    k = k + w["kbias_KH"].ravel()
    v = v + w["vbias_KH"].ravel()
  q, k, v = (a.reshape(len(y), -1, H) for a in (q, k, v))
  if qk_norm:
    q = rms(q, w["q_norm"]["scale_H"], eps, plus_one)
    k = rms(k, w["k_norm"]["scale_H"], eps, plus_one)
  q, k = turn(q, freqs), turn(k, freqs)
  k, v = np.repeat(k, G, axis=1), np.repeat(v, G, axis=1)
  out = np.zeros_like(q)
  for h in range(K * G):
    s = q[:, h] @ k[:, h].T * scale
    s = s if cap is None else cap * np.tanh(s / cap)
    at = np.arange(len(y))
    seen = at[None, :] <= at[:, None]
    if window is not None:
      seen &= at[None, :] > at[:, None] - window
    s = np.where(seen, s, -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    out[:, h] = e / e.sum(-1, keepdims=True) @ v[:, h]
  return out.reshape(len(y), -1) @ w["o_KGHD"].reshape(K * G * H, D)


def silu(x):
  return x / (1 + np.exp(-x))


def gelu_tanh(x):
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return 0.5 * x * (1 + np.tanh(inner))


def forward(
  params,
  tokens,
  *,
  ropes,
  windows,
  scale,
  act=silu,
  eps=1e-6,
  plus_one=False,
  post_norm=False,
  embed_by=1.0,
  bias=False,
  qk_norm=False,
  cap=None,
):
  """The hidden state [T, D] of one row; `ropes` and `windows` by layer."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  x = p["embed_VD"][tokens] * embed_by
  for n, (freqs, window) in enumerate(zip(ropes, windows, strict=True)):
    w = jax.tree.map(lambda a, n=n: a[n], p["layers"])
    norm = lambda a, name, w=w: rms(a, w[name]["scale_D"], eps, plus_one)
    same = {"eps": eps, "plus_one": plus_one, "scale": scale, "cap": cap}
    same |= {"bias": bias, "qk_norm": qk_norm}
    y = norm(x, "attention_norm")
    y = attend(y, w["attention"], freqs, window, **same)
    x = x + (norm(y, "attention_post_norm") if post_norm else y)
    y = norm(x, "mlp_norm")
    y = act(y @ w["mlp"]["gate_DF"]) * (y @ w["mlp"]["up_DF"])
    y = y @ w["mlp"]["down_FD"]
    x = x + (norm(y, "mlp_post_norm") if post_norm else y)
  return rms(x, p["final_norm"]["scale_D"], eps, plus_one)


TINY = Model(
  vocab=40,
  width=24,
  layers=2,
  kv_heads=2,
  groups=3,
  head_dim=16,
  mlp=40,
  context=64,
)
LLAMA3 = Rope(base=5e5, scaling="llama3", factor=8.0, original=16)
YARN = Rope(
  base=1e4, scaling="yarn", factor=4.0, original=16, beta_fast=2, beta_slow=0.5
)
GEMMA = dataclasses.replace(
  TINY,
  layers=7,
  rope=Rope(base=1e6, scaling="linear", factor=8.0),
  local_rope=Rope(base=1e4),
  window=5,
  global_every=6,
  activation="gelu",
  qk_norm=True,
  unit_offset=True,
  post_norm=True,
  embed_scale=True,
  attention_scale=32**-0.5,
)
_LOCAL, _GLOBAL = frequencies(16, 1e4), frequencies(16, 1e6, "linear", factor=8)
GEMMA_HF = {
  "ropes": [_LOCAL] * 5 + [_GLOBAL] + [_LOCAL],
  "windows": [5] * 5 + [None] + [5],
  "scale": 32**-0.5,
  "act": gelu_tanh,
  "plus_one": True,
  "post_norm": True,
  "embed_by": math.sqrt(24),
  "qk_norm": True,
}


def _plain(freqs, **more):
  return {"ropes": [freqs] * 2, "windows": [None] * 2, "scale": 0.25} | more


FAMILIES = {
  "qwen2": (
    dataclasses.replace(TINY, rope=Rope(base=1e6), qkv_bias=True),
    _plain(frequencies(16, 1e6), bias=True),
  ),
  "qwen3": (
    dataclasses.replace(TINY, rope=Rope(base=1e6), qk_norm=True, tied=False),
    _plain(frequencies(16, 1e6), qk_norm=True),
  ),
  "llama3": (
    dataclasses.replace(TINY, rope=LLAMA3, norm_eps=1e-5),
    _plain(
      frequencies(16, 5e5, "llama3", factor=8, original=16, low=1, high=4),
      eps=1e-5,
    ),
  ),
  "yarn": (
    dataclasses.replace(TINY, rope=YARN, qkv_bias=True),
    _plain(
      frequencies(16, 1e4, "yarn", factor=4, original=16, fast=2, slow=0.5),
      bias=True,
    ),
  ),
  "gemma3": (GEMMA, GEMMA_HF),
  "softcaps": (
    dataclasses.replace(GEMMA, attention_softcap=0.5, logit_softcap=1.5),
    GEMMA_HF | {"cap": 0.5},
  ),
}


def noisy(cfg):
  """Parameters with every bias and norm well off its initial value."""
  rng = np.random.default_rng(1)
  start = 0.0 if cfg.unit_offset else 1.0

  def draw(path, leaf):
    x = 0.25 * rng.normal(size=leaf.shape)
    norm = path[-1].key.startswith("scale")
    return jnp.asarray(x + start if norm else x, jnp.float32)

  shapes = nn.unbox(transformer.abstract(cfg))
  return jax.tree_util.tree_map_with_path(draw, shapes)


TOKENS = np.random.default_rng(0).integers(0, 40, T)


def gap(cfg, params, expected):
  """The largest difference, as a share of the oracle's range."""
  positions = np.arange(T)[None]
  ones = np.ones((1, T), np.int32)
  out, _, _ = transformer.apply(cfg, params, TOKENS[None], positions, ones)
  assert out.dtype == cfg.dtype
  return np.abs(np.asarray(out[0]) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_equals_the_published_one(family):
  cfg, hf = FAMILIES[family]
  params = noisy(cfg)
  expected = forward(params, TOKENS, **hf)
  assert gap(cfg, params, expected) <= 1e-5
  with jax.enable_x64(True):
    wide = dataclasses.replace(cfg, dtype="float64")
    assert gap(wide, params, expected) <= 1e-6


def test_logits_are_untied_and_capped_as_published():
  for family, name in (("qwen3", "unembed_VD"), ("softcaps", "embed_VD")):
    cfg, hf = FAMILIES[family]
    params = noisy(cfg)
    hidden = forward(params, TOKENS, **hf)
    logits = hidden @ np.asarray(params[name], np.float64).T
    if family == "softcaps":
      logits = 1.5 * np.tanh(logits / 1.5)
    law = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    given, _ = kernels.token_logprobs(
      jnp.asarray(hidden[None], jnp.float32),
      transformer.unembedding(cfg, params),
      jnp.asarray(TOKENS[None]),
      softcap=cfg.logit_softcap,
    )
    np.testing.assert_allclose(given[0], law[np.arange(T), TOKENS], atol=1e-4)


@pytest.mark.parametrize(
  "given, expected",
  [
    (Rope(base=1e4), {0: 1.0, 16: 0.1, 32: 0.01, 48: 0.001}),
    (
      Rope(base=1e6, scaling="linear", factor=8.0),
      {0: 0.125, 32: 1.25e-4},
    ),
    # wavelengths 2 pi / f: 6283 lies between 8192 / 4 and 8192 / 1, where
    # 8192 / 6283.19 = 1.303797 turns blend by 0.303797 / 3 = 0.101266
    (
      Rope(base=1e4, scaling="llama3", factor=8.0, original=8192),
      {0: 1.0, 32: 0.01, 48: 2.1360744e-4, 60: 1.7782794e-4 / 8},
    ),
    # 32 turns in 8192: 64 ln(40.7437) / ln 1e4 = 25.75 -> 25; one turn:
    # 64 ln(1303.797) / ln 1e4 = 49.84 -> 50; the ramp at 32 is 7 / 25
    (
      Rope(base=1e4, scaling="yarn", factor=4.0, original=8192),
      {0: 1.0, 16: 0.1, 32: 0.01 * (1 - 0.28 * 0.75), 60: 4.4456985e-5},
    ),
  ],
)
def test_frequencies_by_hand(given, expected):
  freqs = rope.frequencies(given, 128)
  for at, value in expected.items():
    np.testing.assert_allclose(freqs[at], value, rtol=1e-5)
