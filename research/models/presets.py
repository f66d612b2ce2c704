"""Published decoders by name, as their config.json gives them."""

import dataclasses
from typing import Any

from research.models.config import Model, Rope

_LLAMA3 = Rope(base=500_000.0, scaling="llama3", factor=8.0, original=8192)
_GEMMA3_GLOBAL = Rope(base=1_000_000.0, scaling="linear", factor=8.0)


def _qwen2(**sizes: Any) -> Model:
  rope = Rope(base=1_000_000.0)
  shape: dict[str, Any] = {"vocab": 151_936, "context": 32_768, "head_dim": 128}
  return Model(**shape | sizes, rope=rope, qkv_bias=True)


def _qwen3(**sizes: Any) -> Model:
  rope = Rope(base=1_000_000.0)
  shape: dict[str, Any] = {"vocab": 151_936, "context": 40_960, "head_dim": 128}
  return Model(**shape | sizes, rope=rope, qk_norm=True)


def _llama3(**sizes: Any) -> Model:
  shape: dict[str, Any] = {
    "vocab": 128_256,
    "context": 131_072,
    "norm_eps": 1e-5,
    "rope": _LLAMA3,
  }
  return Model(**shape | sizes)


def _gemma3(**sizes: Any) -> Model:
  shape: dict[str, Any] = {
    "vocab": 262_208,
    "context": 131_072,
    "head_dim": 256,
    "rope": _GEMMA3_GLOBAL,
    "window": 1024,
  }
  return Model(
    **shape | sizes,
    local_rope=Rope(base=10_000.0),
    global_every=6,
    activation="gelu",
    qk_norm=True,
    unit_offset=True,
    post_norm=True,
    embed_scale=True,
    attention_scale=256**-0.5,
  )


PRESETS = {
  "tiny": Model(
    vocab=264,
    width=128,
    layers=3,
    kv_heads=2,
    groups=2,
    head_dim=32,
    mlp=384,
    context=256,
    qk_norm=True,
  ),
  "qwen2_5_0_5b": _qwen2(
    width=896, layers=24, kv_heads=2, groups=7, head_dim=64, mlp=4864
  ),
  "qwen2_5_1_5b": _qwen2(width=1536, layers=28, kv_heads=2, groups=6, mlp=8960),
  "qwen2_5_7b": _qwen2(
    vocab=152_064,
    width=3584,
    layers=28,
    kv_heads=4,
    groups=7,
    mlp=18_944,
    tied=False,
  ),
  "qwen3_0_6b": _qwen3(width=1024, layers=28, kv_heads=8, groups=2, mlp=3072),
  "qwen3_1_7b": _qwen3(width=2048, layers=28, kv_heads=8, groups=2, mlp=6144),
  "qwen3_8b": _qwen3(
    width=4096, layers=36, kv_heads=8, groups=4, mlp=12_288, tied=False
  ),
  "llama3_2_1b": _llama3(
    width=2048,
    layers=16,
    kv_heads=8,
    groups=4,
    head_dim=64,
    mlp=8192,
    rope=dataclasses.replace(_LLAMA3, factor=32.0),
  ),
  "llama3_1_8b": _llama3(
    width=4096,
    layers=32,
    kv_heads=8,
    groups=4,
    head_dim=128,
    mlp=14_336,
    tied=False,
  ),
  "gemma3_1b": _gemma3(
    vocab=262_144,
    width=1152,
    layers=26,
    kv_heads=1,
    groups=4,
    mlp=6912,
    context=32_768,
    rope=Rope(base=1_000_000.0),
    window=512,
  ),
  "gemma3_4b": _gemma3(width=2560, layers=34, kv_heads=4, groups=2, mlp=10_240),
}


def make(preset: str, **changes: Any) -> Model:
  """Returns a published decoder with some of its switches changed.

  Raises:
    ValueError: no such preset, or no such switch.
  """
  if preset not in PRESETS:
    raise ValueError(
      f"no preset {preset!r}; there are {', '.join(sorted(PRESETS))}"
    )
  try:
    return dataclasses.replace(PRESETS[preset], **changes)
  except TypeError as error:
    known = ", ".join(f.name for f in dataclasses.fields(Model))
    raise ValueError(f"model: {error}; the switches are {known}") from error
