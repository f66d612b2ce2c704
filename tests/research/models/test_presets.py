"""Each preset against the fields of the config.json that its makers publish."""

import dataclasses

import pytest

from research.models import presets, transformer
from research.models.config import Rope

# vocab_size, hidden_size, num_hidden_layers, num_key_value_heads,
# num_attention_heads, head_dim, intermediate_size, max_position_embeddings
SIZES = {
  "qwen2_5_0_5b": (151_936, 896, 24, 2, 14, 64, 4864, 32_768),
  "qwen2_5_1_5b": (151_936, 1536, 28, 2, 12, 128, 8960, 32_768),
  "qwen2_5_7b": (152_064, 3584, 28, 4, 28, 128, 18_944, 32_768),
  "qwen3_0_6b": (151_936, 1024, 28, 8, 16, 128, 3072, 40_960),
  "qwen3_1_7b": (151_936, 2048, 28, 8, 16, 128, 6144, 40_960),
  "qwen3_8b": (151_936, 4096, 36, 8, 32, 128, 12_288, 40_960),
  "llama3_2_1b": (128_256, 2048, 16, 8, 32, 64, 8192, 131_072),
  "llama3_8b": (128_256, 4096, 32, 8, 32, 128, 14_336, 8192),
  "llama3_70b": (128_256, 8192, 80, 8, 64, 128, 28_672, 8192),
  "llama3_1_8b": (128_256, 4096, 32, 8, 32, 128, 14_336, 131_072),
  "gemma3_1b": (262_144, 1152, 26, 1, 4, 256, 6912, 32_768),
  "gemma3_4b": (262_208, 2560, 34, 4, 8, 256, 10_240, 131_072),
  "qwen2_5_3b": (151_936, 2048, 36, 2, 16, 128, 11_008, 32_768),
  "qwen2_5_14b": (152_064, 5120, 48, 8, 40, 128, 13_824, 32_768),
  "qwen2_5_32b": (152_064, 5120, 64, 8, 40, 128, 27_648, 32_768),
  "qwen2_5_72b": (152_064, 8192, 80, 8, 64, 128, 29_568, 32_768),
  "qwen2_5_math_1_5b": (151_936, 1536, 28, 2, 12, 128, 8960, 4096),
  "qwen2_5_math_7b": (152_064, 3584, 28, 4, 28, 128, 18_944, 4096),
  "r1_distill_qwen_1_5b": (151_936, 1536, 28, 2, 12, 128, 8960, 131_072),
  "r1_distill_qwen_7b": (152_064, 3584, 28, 4, 28, 128, 18_944, 131_072),
  "r1_distill_qwen_14b": (152_064, 5120, 48, 8, 40, 128, 13_824, 131_072),
  "r1_distill_qwen_32b": (152_064, 5120, 64, 8, 40, 128, 27_648, 131_072),
  "r1_distill_llama_8b": (128_256, 4096, 32, 8, 32, 128, 14_336, 131_072),
  "r1_distill_llama_70b": (128_256, 8192, 80, 8, 64, 128, 28_672, 131_072),
  "qwen3_4b": (151_936, 2560, 36, 8, 32, 128, 9728, 40_960),
  "qwen3_14b": (151_936, 5120, 40, 8, 40, 128, 17_408, 40_960),
  "qwen3_32b": (151_936, 5120, 64, 8, 64, 128, 25_600, 40_960),
  "llama3_2_3b": (128_256, 3072, 28, 8, 24, 128, 8192, 131_072),
  "llama3_1_70b": (128_256, 8192, 80, 8, 64, 128, 28_672, 131_072),
  "gemma3_12b": (262_208, 3840, 48, 8, 16, 256, 15_360, 131_072),
  "gemma3_27b": (262_208, 5376, 62, 16, 32, 128, 21_504, 131_072),
}

# rope_theta, rope_type, factor, original_max_position_embeddings,
# low_freq_factor, high_freq_factor
ROPES = {
  "qwen2_5_0_5b": (1e6, "none"),
  "qwen2_5_1_5b": (1e6, "none"),
  "qwen2_5_7b": (1e6, "none"),
  "qwen3_0_6b": (1e6, "none"),
  "qwen3_1_7b": (1e6, "none"),
  "qwen3_8b": (1e6, "none"),
  "llama3_2_1b": (5e5, "llama3", 32.0, 8192, 1.0, 4.0),
  "llama3_8b": (5e5, "none"),
  "llama3_70b": (5e5, "none"),
  "llama3_1_8b": (5e5, "llama3", 8.0, 8192, 1.0, 4.0),
  "gemma3_1b": (1e6, "none"),
  "gemma3_4b": (1e6, "linear", 8.0),
  "qwen2_5_3b": (1e6, "none"),
  "qwen2_5_14b": (1e6, "none"),
  "qwen2_5_32b": (1e6, "none"),
  "qwen2_5_72b": (1e6, "none"),
  "qwen2_5_math_1_5b": (1e4, "none"),
  "qwen2_5_math_7b": (1e4, "none"),
  "r1_distill_qwen_1_5b": (1e4, "none"),
  "r1_distill_qwen_7b": (1e4, "none"),
  "r1_distill_qwen_14b": (1e6, "none"),
  "r1_distill_qwen_32b": (1e6, "none"),
  "r1_distill_llama_8b": (5e5, "llama3", 8.0, 8192, 1.0, 4.0),
  "r1_distill_llama_70b": (5e5, "llama3", 8.0, 8192, 1.0, 4.0),
  "qwen3_4b": (1e6, "none"),
  "qwen3_14b": (1e6, "none"),
  "qwen3_32b": (1e6, "none"),
  "llama3_2_3b": (5e5, "llama3", 32.0, 8192, 1.0, 4.0),
  "llama3_1_70b": (5e5, "llama3", 8.0, 8192, 1.0, 4.0),
  "gemma3_12b": (1e6, "linear", 8.0),
  "gemma3_27b": (1e6, "linear", 8.0),
}

# rms_norm_eps, tie_word_embeddings, norms of q and k, bias of q, k and v
SWITCHES = {
  "qwen2_5_0_5b": (1e-6, True, False, True),
  "qwen2_5_1_5b": (1e-6, True, False, True),
  "qwen2_5_7b": (1e-6, False, False, True),
  "qwen3_0_6b": (1e-6, True, True, False),
  "qwen3_1_7b": (1e-6, True, True, False),
  "qwen3_8b": (1e-6, False, True, False),
  "llama3_2_1b": (1e-5, True, False, False),
  "llama3_8b": (1e-5, False, False, False),
  "llama3_70b": (1e-5, False, False, False),
  "llama3_1_8b": (1e-5, False, False, False),
  "gemma3_1b": (1e-6, True, True, False),
  "gemma3_4b": (1e-6, True, True, False),
  "qwen2_5_3b": (1e-6, True, False, True),
  "qwen2_5_14b": (1e-6, False, False, True),
  "qwen2_5_32b": (1e-6, False, False, True),
  "qwen2_5_72b": (1e-6, False, False, True),
  "qwen2_5_math_1_5b": (1e-6, True, False, True),
  "qwen2_5_math_7b": (1e-6, False, False, True),
  "r1_distill_qwen_1_5b": (1e-6, False, False, True),
  "r1_distill_qwen_7b": (1e-6, False, False, True),
  "r1_distill_qwen_14b": (1e-5, False, False, True),
  "r1_distill_qwen_32b": (1e-5, False, False, True),
  "r1_distill_llama_8b": (1e-5, False, False, False),
  "r1_distill_llama_70b": (1e-5, False, False, False),
  "qwen3_4b": (1e-6, True, True, False),
  "qwen3_14b": (1e-6, False, True, False),
  "qwen3_32b": (1e-6, False, True, False),
  "llama3_2_3b": (1e-5, True, False, False),
  "llama3_1_70b": (1e-5, False, False, False),
  "gemma3_12b": (1e-6, True, True, False),
  "gemma3_27b": (1e-6, True, True, False),
}

# sliding_window, sliding_window_pattern, rope_local_base_freq,
# query_pre_attn_scalar, hidden_activation, 1 + w, post norms, embedding scale
GEMMA = {
  "gemma3_1b": (512, 6, 1e4, 256, "gelu", True, True, True),
  "gemma3_4b": (1024, 6, 1e4, 256, "gelu", True, True, True),
  "gemma3_12b": (1024, 6, 1e4, 256, "gelu", True, True, True),
  "gemma3_27b": (1024, 6, 1e4, 168, "gelu", True, True, True),
}
OTHERS = (None, 1, None, None, "silu", False, False, False)

PARAMETERS = {
  "qwen2_5_0_5b": 494_032_768,
  "qwen2_5_1_5b": 1_543_714_304,
  "qwen2_5_3b": 3_085_938_688,
  "qwen2_5_7b": 7_615_616_512,
  "qwen2_5_14b": 14_770_033_664,
  "qwen2_5_32b": 32_763_876_352,
  "qwen2_5_72b": 72_706_203_648,
  "qwen2_5_math_1_5b": 1_543_714_304,
  "qwen2_5_math_7b": 7_615_616_512,
  "r1_distill_qwen_1_5b": 1_777_088_000,
  "r1_distill_qwen_7b": 7_615_616_512,
  "r1_distill_qwen_14b": 14_770_033_664,
  "r1_distill_qwen_32b": 32_763_876_352,
  "r1_distill_llama_8b": 8_030_261_248,
  "r1_distill_llama_70b": 70_553_706_496,
  "qwen3_0_6b": 596_049_920,
  "qwen3_1_7b": 1_720_574_976,
  "qwen3_4b": 4_022_468_096,
  "qwen3_8b": 8_190_735_360,
  "qwen3_14b": 14_768_307_200,
  "qwen3_32b": 32_762_123_264,
  "llama3_8b": 8_030_261_248,
  "llama3_70b": 70_553_706_496,
  "llama3_2_1b": 1_235_814_400,
  "llama3_2_3b": 3_212_749_824,
  "llama3_1_8b": 8_030_261_248,
  "llama3_1_70b": 70_553_706_496,
  "gemma3_1b": 999_885_952,
  # the published totals without the vision tower and its projector
  "gemma3_4b": 4_300_079_472 - 416_866_032 - 2_950_272,
  "gemma3_12b": 12_187_325_040 - 416_866_032 - 4_424_832,
  "gemma3_27b": 27_432_406_640 - 416_866_032 - 6_194_304,
}


def test_the_tables_hold_every_published_preset():
  assert set(presets.PRESETS) - {"tiny"} == set(SIZES)
  assert set(SIZES) == set(ROPES) == set(SWITCHES) > set(GEMMA)
  assert set(SIZES) == set(PARAMETERS)


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameters(preset):
  assert transformer.count(presets.make(preset)) == PARAMETERS[preset]


@pytest.mark.parametrize("preset", SIZES)
def test_sizes(preset):
  m = presets.make(preset)
  heads = m.kv_heads * m.groups
  sizes = (m.vocab, m.width, m.layers, m.kv_heads, heads, m.head_dim)
  assert (*sizes, m.mlp, m.context) == SIZES[preset]


@pytest.mark.parametrize("preset", ROPES)
def test_ropes(preset):
  given = dataclasses.astuple(presets.make(preset).rope)
  published = ROPES[preset]
  assert given[: len(published)] == published


@pytest.mark.parametrize("preset", SWITCHES)
def test_switches(preset):
  m = presets.make(preset)
  assert (m.norm_eps, m.tied, m.qk_norm, m.qkv_bias) == SWITCHES[preset]
  assert m.attention_softcap is None and m.logit_softcap is None


@pytest.mark.parametrize("preset", SIZES)
def test_layer_patterns_scales_and_activations(preset):
  m = presets.make(preset)
  window, period, theta, scalar, *rest = GEMMA.get(preset, OTHERS)
  assert (m.window, m.global_every) == (window, period)
  assert m.local_rope == (theta and Rope(base=theta, scaling="none"))
  scale = m.attention_scale or m.head_dim**-0.5
  assert scale == pytest.approx((scalar or m.head_dim) ** -0.5)
  flags = [m.activation, m.unit_offset, m.post_norm, m.embed_scale]
  assert flags == rest
