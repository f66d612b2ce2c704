"""Published decoders by name, as their config.json gives them."""

import dataclasses
from typing import Any

from research.models.config import Model, Rope

_LLAMA3 = Rope(base=500_000.0, scaling="llama3", factor=8.0, original=8192)
_LLAMA3_2 = dataclasses.replace(_LLAMA3, factor=32.0)
_GEMMA3_GLOBAL = Rope(base=1_000_000.0, scaling="linear", factor=8.0)
_GEMMA3 = {
  "local_rope": Rope(base=10_000.0),
  "global_every": 6,
  "activation": "gelu",
  "qk_norm": True,
  "unit_offset": True,
  "post_norm": True,
  "embed_scale": True,
}


def _sizes(
  width: int, layers: int, kv_heads: int, heads: int, mlp: int
) -> dict[str, Any]:
  return {
    "width": width,
    "layers": layers,
    "kv_heads": kv_heads,
    "groups": heads // kv_heads,
    "mlp": mlp,
  }


def _qwen2(*sizes: int, **rest: Any) -> Model:
  usual: dict[str, Any] = {
    "vocab": 151_936,
    "context": 32_768,
    "head_dim": 128,
    "rope": Rope(base=1_000_000.0),
    "qkv_bias": True,
  }
  return Model(**usual | _sizes(*sizes) | rest)


def _large(*sizes: int, **rest: Any) -> Model:
  """Qwen2.5 from 7B on."""
  return _qwen2(*sizes, **{"vocab": 152_064, "tied": False} | rest)


def _qwen3(*sizes: int, **rest: Any) -> Model:
  usual: dict[str, Any] = {
    "vocab": 151_936,
    "context": 40_960,
    "head_dim": 128,
    "rope": Rope(base=1_000_000.0),
    "qk_norm": True,
  }
  return Model(**usual | _sizes(*sizes) | rest)


def _llama3(*sizes: int, **rest: Any) -> Model:
  usual: dict[str, Any] = {
    "vocab": 128_256,
    "context": 131_072,
    "head_dim": 128,
    "norm_eps": 1e-5,
    "rope": _LLAMA3,
  }
  return Model(**usual | _sizes(*sizes) | rest)


def _gemma3(*sizes: int, **rest: Any) -> Model:
  usual: dict[str, Any] = {
    "vocab": 262_208,
    "context": 131_072,
    "head_dim": 256,
    "rope": _GEMMA3_GLOBAL,
    "window": 1024,
  }
  return Model(**_GEMMA3 | usual | _sizes(*sizes) | rest)


# DeepSeek-R1-Distill is fine-tuned from Qwen2.5(-Math) and Llama 3.
_R1: dict[str, Any] = {"context": 131_072, "tied": False}
_R1_MATH = _R1 | {"rope": Rope()}
_MATH = {"context": 4096, "rope": Rope()}
# Llama 3.0, before it was stretched.
_FIRST: dict[str, Any] = {
  "context": 8192,
  "rope": Rope(base=500_000.0),
  "tied": False,
}

# Sizes: width, layers, kv heads, query heads, mlp.
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
  "qwen2_5_0_5b": _qwen2(896, 24, 2, 14, 4864, head_dim=64),
  "qwen2_5_1_5b": _qwen2(1536, 28, 2, 12, 8960),
  "qwen2_5_3b": _qwen2(2048, 36, 2, 16, 11_008),
  "qwen2_5_7b": _large(3584, 28, 4, 28, 18_944),
  "qwen2_5_14b": _large(5120, 48, 8, 40, 13_824),
  "qwen2_5_32b": _large(5120, 64, 8, 40, 27_648),
  "qwen2_5_72b": _large(8192, 80, 8, 64, 29_568),
  "qwen2_5_math_1_5b": _qwen2(1536, 28, 2, 12, 8960, **_MATH),
  "qwen2_5_math_7b": _large(3584, 28, 4, 28, 18_944, **_MATH),
  "r1_distill_qwen_1_5b": _qwen2(1536, 28, 2, 12, 8960, **_R1_MATH),
  "r1_distill_qwen_7b": _large(3584, 28, 4, 28, 18_944, **_R1_MATH),
  "r1_distill_qwen_14b": _large(5120, 48, 8, 40, 13_824, **_R1, norm_eps=1e-5),
  "r1_distill_qwen_32b": _large(5120, 64, 8, 40, 27_648, **_R1, norm_eps=1e-5),
  "r1_distill_llama_8b": _llama3(4096, 32, 8, 32, 14_336, tied=False),
  "r1_distill_llama_70b": _llama3(8192, 80, 8, 64, 28_672, tied=False),
  "qwen3_0_6b": _qwen3(1024, 28, 8, 16, 3072),
  "qwen3_1_7b": _qwen3(2048, 28, 8, 16, 6144),
  "qwen3_4b": _qwen3(2560, 36, 8, 32, 9728),
  "qwen3_8b": _qwen3(4096, 36, 8, 32, 12_288, tied=False),
  "qwen3_14b": _qwen3(5120, 40, 8, 40, 17_408, tied=False),
  "qwen3_32b": _qwen3(5120, 64, 8, 64, 25_600, tied=False),
  "llama3_8b": _llama3(4096, 32, 8, 32, 14_336, **_FIRST),
  "llama3_70b": _llama3(8192, 80, 8, 64, 28_672, **_FIRST),
  "llama3_2_1b": _llama3(2048, 16, 8, 32, 8192, head_dim=64, rope=_LLAMA3_2),
  "llama3_2_3b": _llama3(3072, 28, 8, 24, 8192, rope=_LLAMA3_2),
  "llama3_1_8b": _llama3(4096, 32, 8, 32, 14_336, tied=False),
  "llama3_1_70b": _llama3(8192, 80, 8, 64, 28_672, tied=False),
  "gemma3_1b": _gemma3(
    *(1152, 26, 1, 4, 6912),
    vocab=262_144,
    context=32_768,
    rope=Rope(base=1_000_000.0),
    window=512,
  ),
  "gemma3_4b": _gemma3(2560, 34, 4, 8, 10_240),
  "gemma3_12b": _gemma3(3840, 48, 8, 16, 15_360),
  "gemma3_27b": _gemma3(
    *(5376, 62, 16, 32, 21_504), head_dim=128, attention_scale=168**-0.5
  ),
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
