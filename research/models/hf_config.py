"""A decoder's config.json as transformers writes it, to a Model and back."""

import math
from collections.abc import Mapping
from typing import Any

from research.models.config import Model, Rope

ARCHITECTURES = {
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "llama": "LlamaForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
}
# A switch that changes the sums and that no Model has: only this value of it.
_ONLY = {
  "attention_bias": False,
  "mlp_bias": False,
  "use_sliding_window": False,
  "use_bidirectional_attention": False,
}
# What Gemma 3's files leave to transformers' defaults, some all of it.
_GEMMA3 = {
  "vocab_size": 262_208,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "head_dim": 256,
  "max_position_embeddings": 131_072,
  "rms_norm_eps": 1e-6,
  "rope_theta": 1_000_000.0,
  "rope_local_base_freq": 10_000.0,
  "query_pre_attn_scalar": 256,
  "sliding_window": 4096,
}
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh"}


def decode(raw: Mapping[str, Any]) -> Model:
  """Returns the decoder that a config.json describes.

  Gemma 3's files for text and images are read for their text alone.

  Raises:
    ValueError: a family, a scaling or a switch that no Model has; a key that is
      missing.
  """
  if raw.get("model_type") == "gemma3":
    raw = raw["text_config"] | {"model_type": "gemma3_text"}
  family = raw.get("model_type")
  if family == "gemma3_text":
    raw = {**_GEMMA3, **raw}
  if family not in ARCHITECTURES:
    known = ", ".join(ARCHITECTURES)
    raise ValueError(f"config.json: model_type is {family!r}, none of {known}")
  for name, only in _ONLY.items():
    if raw.get(name, only) not in (only, None):
      raise ValueError(f"config.json: {name} is {raw[name]!r}: unsupported")
  try:
    return Model(**_sizes(raw), **_switches(family, raw))
  except KeyError as error:
    raise ValueError(f"config.json: {family} lacks the key {error}") from error


def _sizes(raw: Mapping[str, Any]) -> dict[str, Any]:
  heads = raw["num_attention_heads"]
  kv_heads = raw.get("num_key_value_heads") or heads
  if heads % kv_heads:
    raise ValueError(
      f"config.json: num_attention_heads is {heads}, no multiple of "
      f"num_key_value_heads, {kv_heads}"
    )
  return {
    "vocab": raw["vocab_size"],
    "width": raw["hidden_size"],
    "layers": raw["num_hidden_layers"],
    "kv_heads": kv_heads,
    "groups": heads // kv_heads,
    "head_dim": raw.get("head_dim") or raw["hidden_size"] // heads,
    "mlp": raw["intermediate_size"],
    "context": raw["max_position_embeddings"],
    "norm_eps": raw["rms_norm_eps"],
  }


def _switches(family: str, raw: Mapping[str, Any]) -> dict[str, Any]:
  """What tells one family from another."""
  gemma = family == "gemma3_text"
  named = raw.get("hidden_activation" if gemma else "hidden_act")
  wanted = "gelu" if gemma else "silu"
  if named not in (_ACTIVATIONS[wanted], None):
    raise ValueError(f"config.json: the activation is {named!r}: unsupported")
  switches: dict[str, Any] = {
    "activation": wanted,
    "qkv_bias": family == "qwen2",
    "qk_norm": family in ("qwen3", "gemma3_text"),
    "tied": raw.get("tie_word_embeddings", gemma),
    "rope": _rope(raw, "full_attention"),
  }
  if not gemma:
    return switches
  scalar = raw["query_pre_attn_scalar"]
  return switches | {
    "unit_offset": True,
    "post_norm": True,
    "embed_scale": True,
    "window": raw["sliding_window"],
    "global_every": _global_every(raw),
    "local_rope": _rope(raw, "sliding_attention"),
    "attention_scale": None if scalar == raw["head_dim"] else scalar**-0.5,
    "attention_softcap": raw.get("attn_logit_softcapping"),
    "logit_softcap": raw.get("final_logit_softcapping"),
  }


def _global_every(raw: Mapping[str, Any]) -> int:
  """Reads which layers see everything: each n-th one, or it is refused."""
  types = raw.get("layer_types")
  if not types or "full_attention" not in types:
    return raw.get("sliding_window_pattern", 6)
  every = types.index("full_attention") + 1
  kinds = {True: "full_attention", False: "sliding_attention"}
  if types != [kinds[(n + 1) % every == 0] for n in range(len(types))]:
    raise ValueError(f"config.json: layer_types has no period: {types}")
  return every


def _rope(raw: Mapping[str, Any], kind: str) -> Rope:
  """Reads a rotation, of global or local layers, in either spelling."""
  rope = raw.get("rope_parameters") or {}
  rope = rope.get(kind, rope)
  if not rope:
    local = kind == "sliding_attention"
    base = raw["rope_local_base_freq" if local else "rope_theta"]
    rope = {} if local else raw.get("rope_scaling") or {}
    rope = {**rope, "rope_theta": base}
  scaling = rope.get("rope_type", rope.get("type", "default"))
  original = rope.get("original_max_position_embeddings")
  original = original or raw["max_position_embeddings"]
  match scaling:
    case "default":
      return Rope(rope["rope_theta"])
    case "linear":
      return Rope(rope["rope_theta"], "linear", rope["factor"])
    case "llama3":
      turns = rope["low_freq_factor"], rope["high_freq_factor"]
      theta, factor = rope["rope_theta"], rope["factor"]
      return Rope(theta, "llama3", factor, original, *turns)
    case "yarn":
      return _yarn(rope, original)
  raise ValueError(f"config.json: rope scaling {scaling!r} is unsupported")


def _yarn(raw: Mapping[str, Any], original: int) -> Rope:
  factor = raw["factor"]
  usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
  sharper = raw.get("attention_factor") or usual
  odd = [k for k in ("mscale", "mscale_all_dim") if raw.get(k)]
  if odd or raw.get("truncate") is False or abs(sharper - usual) > 1e-6:
    raise ValueError(f"config.json: YaRN with {dict(raw)} is unsupported")
  return Rope(
    raw["rope_theta"],
    "yarn",
    factor,
    original,
    beta_fast=raw.get("beta_fast") or 32.0,
    beta_slow=raw.get("beta_slow") or 1.0,
  )


def family_of(model: Model) -> str:
  """Returns the model_type that a decoder's switches make.

  Raises:
    ValueError: no family has these switches together.
  """
  gemma = (model.unit_offset, model.post_norm, model.embed_scale)
  plain = not any(gemma) and model.activation == "silu"
  plain = plain and model.window is None and model.attention_scale is None
  plain = plain and not (model.attention_softcap or model.logit_softcap)
  match (plain, model.qkv_bias, model.qk_norm):
    case (True, True, False):
      return "qwen2"
    case (True, False, True):
      return "qwen3"
    case (True, False, False):
      return "llama"
    case (False, False, True) if all(gemma) and model.window:
      return "gemma3_text"
  raise ValueError(f"no published family has the switches of {model}")


def encode(model: Model) -> dict[str, Any]:
  """Returns the config.json of a decoder; `decode` reads it back."""
  family = family_of(model)
  config: dict[str, Any] = {
    "architectures": [ARCHITECTURES[family]],
    "model_type": family,
    "vocab_size": model.vocab,
    "hidden_size": model.width,
    "num_hidden_layers": model.layers,
    "num_attention_heads": model.kv_heads * model.groups,
    "num_key_value_heads": model.kv_heads,
    "head_dim": model.head_dim,
    "intermediate_size": model.mlp,
    "max_position_embeddings": model.context,
    "rms_norm_eps": model.norm_eps,
    "rope_theta": model.rope.base,
    "tie_word_embeddings": model.tied,
    "attention_bias": False,
  }
  if model.rope.scaling != "none":
    config["rope_scaling"] = _scaling(model.rope)
  if family != "gemma3_text":
    return config | {"hidden_act": "silu"}
  return config | _gemma(model)


def _scaling(rope: Rope) -> dict[str, Any]:
  raw: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
  if rope.scaling == "llama3":
    raw["low_freq_factor"] = rope.low_frequency
    raw["high_freq_factor"] = rope.high_frequency
  if rope.scaling == "yarn":
    raw |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow}
  if rope.scaling != "linear":
    raw["original_max_position_embeddings"] = rope.original
  return raw


def _gemma(model: Model) -> dict[str, Any]:
  """What Gemma 3 has beside the others' keys."""
  local = [model.is_local(n) for n in range(model.layers)]
  kinds = {True: "sliding_attention", False: "full_attention"}
  scale = model.attention_scale or model.head_dim**-0.5
  base = model.local_rope.base if model.local_rope else model.rope.base
  return {
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": model.window,
    "sliding_window_pattern": model.global_every,
    "layer_types": [kinds[x] for x in local],
    "rope_local_base_freq": base,
    "query_pre_attn_scalar": round(scale**-2, 6),
    "attn_logit_softcapping": model.attention_softcap,
    "final_logit_softcapping": model.logit_softcap,
  }
