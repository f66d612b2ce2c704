"""Checkpoints in and out: bit for bit, on any mesh, and never half."""

import dataclasses
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from research import sharding
from research.models import hf_config, huggingface, presets, transformer
from research.models.config import Model, Rope

QWEN2 = Model(
  vocab=64,
  width=32,
  layers=3,
  kv_heads=1,
  groups=7,
  head_dim=12,
  mlp=48,
  context=64,
  qkv_bias=True,
)
QWEN3 = dataclasses.replace(
  QWEN2, kv_heads=2, groups=2, qkv_bias=False, qk_norm=True, tied=False
)
LLAMA = dataclasses.replace(
  QWEN3,
  qk_norm=False,
  rope=Rope(500_000.0, "llama3", 8.0, 16),
  norm_eps=1e-5,
)
GEMMA3 = dataclasses.replace(
  QWEN2,
  kv_heads=2,
  groups=2,
  layers=7,
  qkv_bias=False,
  qk_norm=True,
  activation="gelu",
  unit_offset=True,
  post_norm=True,
  embed_scale=True,
  window=5,
  global_every=6,
  local_rope=Rope(base=100.0),
  rope=Rope(1000.0, "linear", 8.0),
  attention_scale=16**-0.5,
)
FAMILIES = {
  "qwen2": QWEN2,
  "qwen3": QWEN3,
  "llama": LLAMA,
  "gemma3_text": GEMMA3,
}


def make(config, dtype=jnp.bfloat16):
  """Parameters of which no two layers, nor any two numbers, are alike."""
  params = transformer.init(config, jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  drawn = [
    jax.random.normal(key, x.shape, dtype)
    for key, x in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, drawn)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize(
  "family",
  [  # the slow ones have no name that the others lack
    "qwen2",
    pytest.param("qwen3", marks=pytest.mark.slow),
    pytest.param("llama", marks=pytest.mark.slow),
    "gemma3_text",
  ],
)
def test_out_and_in_bit_for_bit(family, tmp_path):
  config = dataclasses.replace(FAMILIES[family], dtype="bfloat16")
  params = make(config)
  huggingface.save(tmp_path / "x", config, params, most=20_000)
  assert len(list((tmp_path / "x").glob("*.safetensors"))) > 1
  read, loaded = huggingface.load(tmp_path / "x")
  assert read == config
  assert_same(loaded, params)


def save(folder, config=QWEN3, **how):
  huggingface.save(folder, config, make(config), **how)
  return folder


def test_the_library_reads_what_is_written(tmp_path):
  """safetensors' own reader, and the layout: [out, in], layer by layer."""
  params = make(QWEN3)
  huggingface.save(tmp_path / "x", QWEN3, params)
  held = safetensors.numpy.load_file(tmp_path / "x" / "model.safetensors")
  q_DKGH = np.asarray(params["layers"]["attention"]["q_DKGH"])[2]
  name = "model.layers.2.self_attn.q_proj.weight"
  np.testing.assert_array_equal(held[name], q_DKGH.reshape(32, -1).T)
  o_KGHD = np.asarray(params["layers"]["attention"]["o_KGHD"])[1]
  name = "model.layers.1.self_attn.o_proj.weight"
  np.testing.assert_array_equal(held[name], o_KGHD.reshape(-1, 32).T)
  assert held["lm_head.weight"].shape == (64, 32)


def test_what_the_library_writes_is_read(tmp_path):
  folder = save(tmp_path / "x")
  path = folder / "model.safetensors"
  held = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(held, path, {"format": "pt"})
  _, loaded = huggingface.load(folder)
  assert_same(loaded, make(QWEN3))


@pytest.mark.parametrize("shape", [{"fsdp": 2, "tensor": 2}, {"tensor": 4}])
def test_each_device_gets_its_part(shape, tmp_path):
  params = make(QWEN3)
  folder = save(tmp_path / "x")
  mesh = sharding.make_mesh(**shape)
  _, loaded = huggingface.load(folder, mesh=mesh)
  assert_same(loaded, params)
  expected = sharding.of_parameters(transformer.abstract(QWEN3), mesh)
  for x, where in zip(
    jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True
  ):
    assert x.sharding.is_equivalent_to(where, x.ndim)


def test_another_dtype(tmp_path):
  _, loaded = huggingface.load(save(tmp_path / "x"), dtype=jnp.float32)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), make(QWEN3))
  assert_same(loaded, wide)


def test_swapped_layers_are_another_model(tmp_path):
  """Negative control of the layout: layers 0 and 1 change places."""
  params = make(QWEN3, jnp.float32)
  swapped = params | {
    "layers": jax.tree.map(lambda x: x[jnp.array([1, 0, 2])], params["layers"])
  }
  tokens = jnp.arange(8)[None]
  ones = jnp.ones((1, 8), jnp.int32)
  run = lambda p: transformer.apply(QWEN3, p, tokens, tokens, ones)[0]
  assert np.abs(run(params) - run(swapped)).max() > 1e-2


@pytest.mark.parametrize("name", [n for n in presets.PRESETS if n != "tiny"])
def test_published_configs_go_there_and_back(name):
  preset = presets.PRESETS[name]
  assert hf_config.decode(hf_config.encode(preset)) == preset


def test_the_usual_scale_goes_there_and_back():
  usual = dataclasses.replace(GEMMA3, attention_scale=None)
  assert hf_config.encode(usual)["query_pre_attn_scalar"] == usual.head_dim
  assert hf_config.decode(hf_config.encode(usual)) == usual


NAME = "model.layers.1.mlp.up_proj.weight"


def rewrite(path, change):
  """Applies `change` to {name: array} of a file."""
  held = dict(safetensors.numpy.load_file(path))
  change(held)
  safetensors.numpy.save_file(held, path, {"format": "pt"})


def with_nan(held):
  x = held[NAME].copy()
  x[3, 5] = np.nan
  held[NAME] = x


TENSORS = {
  "missing": (lambda h: h.pop(NAME), rf"has no tensor {NAME}"),
  "surplus": (
    lambda h: h.update(odd=np.zeros(3, np.float32)),
    "safetensors: odd is no part of this model",
  ),
  "shape": (
    lambda h: h.update({NAME: h[NAME].T.copy()}),
    rf"safetensors: {NAME} is \(32, 48\); config.json makes it \(48, 32\)",
  ),
  "nan": (with_nan, rf"safetensors: {NAME} holds NaN or infinity"),
  "integers": (
    lambda h: h.update({NAME: h[NAME].astype(np.int32)}),
    f"damaged header.*{NAME}.*dtype I32",
  ),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_a_wrong_tensor_is_named(kind, tmp_path):
  change, message = TENSORS[kind]
  folder = save(tmp_path / "x")
  rewrite(folder / "model.safetensors", change)
  with pytest.raises(ValueError, match=message):
    huggingface.load(folder)


def header_of(data):
  length = struct.unpack("<Q", data[:8])[0]
  return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header, rest):
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + rest


def moved(data):
  header, rest = header_of(data)
  begin, end = header[NAME]["data_offsets"]
  header[NAME]["data_offsets"] = [begin + 4, end + 4]
  return with_header(header, rest)


def doubled(data):
  length = struct.unpack("<Q", data[:8])[0]
  text = data[8 : 8 + length].rstrip()
  text = text[:-1] + b',"odd":1,"odd":2}'
  return struct.pack("<Q", len(text)) + text + data[8 + length :]


FILES = {
  "empty": lambda data: b"",
  "cut within the header": lambda data: data[:100],
  "cut within a tensor": lambda data: data[:-7],
  "longer": lambda data: data + b"more",
  "a flipped length": lambda data: data[:6] + b"\x01" + data[7:],
  "a flipped brace": lambda data: data[:8] + b"[" + data[9:],
  "no JSON": lambda data: data[:12] + b"\xff\xfe" + data[14:],
  "a moved tensor": moved,
  "a name twice": doubled,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_named(kind, tmp_path):
  folder = save(tmp_path / "x")
  path = folder / "model.safetensors"
  path.write_bytes(FILES[kind](path.read_bytes()))
  with pytest.raises(ValueError, match=r"x/model\.safetensors"):
    huggingface.load(folder)


def reindex(folder, change):
  path = folder / "model.safetensors.index.json"
  text = json.loads(path.read_text())
  change(text["weight_map"])
  path.write_text(json.dumps(text))


INDICES = {
  "outside": (
    lambda m: m.update({NAME: "../secret.safetensors"}),
    r"points outside of its directory: '\.\./secret",
  ),
  "absolute": (
    lambda m: m.update({NAME: "/etc/passwd"}),
    "points outside of its directory: '/etc/passwd'",
  ),
  "lost file": (
    lambda m: m.update({NAME: "model-9.safetensors"}),
    "names model-9.safetensors, which is not there",
  ),
  "lost tensor": (
    lambda m: m.update(odd=m[NAME]),
    r"model-0000\d-of-.* lacks odd",
  ),
  "unlisted tensor": (lambda m: m.pop(NAME), f"holds {NAME}"),
}


@pytest.mark.parametrize("kind", INDICES)
def test_a_wrong_index_is_named(kind, tmp_path):
  change, message = INDICES[kind]
  folder = save(tmp_path / "x", most=20_000)
  reindex(folder, change)
  with pytest.raises(ValueError, match=message):
    huggingface.load(folder)


def test_no_checkpoint_at_all(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"config\.json is not there"):
    huggingface.load(tmp_path)


CONFIGS = {
  "family": ({"model_type": "mamba"}, "model_type is 'mamba', none of qwen2"),
  "scaling": (
    {"rope_scaling": {"rope_type": "longrope"}},
    "rope scaling 'longrope' is unsupported",
  ),
  "bias": ({"attention_bias": True}, "attention_bias is True: unsupported"),
  "activation": ({"hidden_act": "relu"}, "activation is 'relu'"),
  "heads": ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
  "lacking": ({"hidden_size": None}, "lacks the key 'hidden_size'"),
  "text": ({"hidden_size": "32"}, ""),
  "no heads": ({"num_key_value_heads": 1, "num_attention_heads": 0}, ""),
  "a word": ({"rope_scaling": "linear"}, ""),
  "no base": ({"rope_theta": 0}, "both are above 0"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_no_model_has_is_refused(kind, tmp_path):
  change, message = CONFIGS[kind]
  folder = save(tmp_path / "x")
  path = folder / "config.json"
  text = json.loads(path.read_text()) | change
  text = {k: v for k, v in text.items() if v is not None}
  path.write_text(json.dumps(text))
  with pytest.raises(ValueError, match=rf"x/config\.json: .*{message}"):
    huggingface.load(folder)


@pytest.mark.parametrize("text", ["[]", "null", "[" * 10**5])
def test_a_config_that_is_no_object_is_refused(text, tmp_path):
  folder = save(tmp_path / "x")
  (folder / "config.json").write_text(text)
  with pytest.raises(ValueError, match=r"x/config\.json: "):
    huggingface.load(folder)


def test_gemma_3s_abridged_files(tmp_path):
  """4B to 27B leave most of text_config to transformers' defaults."""
  published = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
      "model_type": "gemma3_text",
      "hidden_size": 2560,
      "intermediate_size": 10240,
      "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024,
    },
  }
  (tmp_path / "config.json").write_text(json.dumps(published))
  found = huggingface._config(tmp_path)
  preset = presets.make("gemma3_4b", dtype="bfloat16")
  free = {"vocab": preset.vocab, "context": preset.context}
  assert dataclasses.replace(found, **free) == preset
  assert (found.vocab, found.context) == (262_208, 131_072)


def test_nothing_is_overwritten_and_nothing_is_half(tmp_path, monkeypatch):
  folder = save(tmp_path / "x")
  with pytest.raises(FileExistsError, match="there already"):
    save(tmp_path / "x")
  before = sorted(p.name for p in folder.iterdir())

  def broken(*_):
    raise OSError("disk full")

  monkeypatch.setattr(huggingface.hf_files, "write", broken)
  with pytest.raises(OSError, match="disk full"):
    save(tmp_path / "y")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]
  assert sorted(p.name for p in folder.iterdir()) == before


def test_a_tokenizer_and_its_ids_travel(tmp_path):
  source = save(tmp_path / "x")
  (source / "tokenizer.json").write_text("{}")
  path = source / "config.json"
  path.write_text(
    json.dumps(json.loads(path.read_text()) | {"eos_token_id": 7})
  )
  folder = save(tmp_path / "y", source=source)
  assert (folder / "tokenizer.json").read_text() == "{}"
  assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 7
