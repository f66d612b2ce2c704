"""PEFT's adapters in and out: the same function, and every damage named."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from research import sharding
from research.models import huggingface, lora, peft, transformer
from research.models.config import Lora, Model

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
CASES = sorted(path.name for path in (GOLDEN / "peft").iterdir())
SMALL = Model(
  vocab=32,
  width=16,
  layers=2,
  kv_heads=2,
  groups=2,
  head_dim=8,
  mlp=24,
  context=32,
)
ADAPTED = dataclasses.replace(SMALL, lora=Lora(2, 6.0, ("q", "o", "down")))


def adapters(config=ADAPTED, seed=0):
  """Adapters of which no two numbers are alike."""
  shapes = jax.eval_shape(
    lambda key: lora.trained(config, transformer.init(config, key)),
    jax.random.key(0),
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes
  )


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@functools.partial(jax.jit, static_argnums=0)
def logits(config, params, tokens):
  rows, T = tokens.shape
  places = jnp.broadcast_to(jnp.arange(T)[None], (rows, T))
  ones = jnp.ones((rows, T), jnp.int32)
  hidden = transformer.apply(config, params, tokens, places, ones)[0]
  unembed = transformer.unembedding(config, params)
  return jnp.einsum("BTD,VD->BTV", hidden, unembed)


@pytest.mark.parametrize("case", CASES)
def test_what_peft_wrote_says_what_peft_says(case):
  plain, base = huggingface.load(GOLDEN / "huggingface" / case)
  config, read = peft.load(GOLDEN / "peft" / case, plain)
  with np.load(GOLDEN / "huggingface" / case / "said.npz") as held:
    tokens, before = jnp.asarray(held["tokens"]), held["logits"]
  with np.load(GOLDEN / "peft" / case / "said.npz") as held:
    expected = held["logits"]
  said = logits(config, lora.join(base, read), tokens)
  assert np.abs(said - expected).max() <= 1e-4 * np.ptp(expected)
  # Negative control: these adapters do something.
  assert np.abs(before - expected).max() > 0.1 * np.ptp(expected)
  merged = lora.merge(config, lora.join(base, read))
  assert np.abs(logits(*merged, tokens) - expected).max() <= 1e-4 * np.ptp(
    expected
  )


@pytest.mark.parametrize("case", CASES)
def test_what_we_write_is_what_peft_wrote(case, tmp_path):
  plain, _ = huggingface.load(GOLDEN / "huggingface" / case)
  config, read = peft.load(GOLDEN / "peft" / case, plain)
  peft.save(tmp_path / "x", config, read, base_name=case)
  ours = safetensors.numpy.load_file(tmp_path / "x" / peft.WEIGHTS)
  theirs = safetensors.numpy.load_file(GOLDEN / "peft" / case / peft.WEIGHTS)
  assert ours.keys() == theirs.keys()
  for name in theirs:
    np.testing.assert_array_equal(ours[name], theirs[name])
  ours, theirs = (
    json.loads((folder / peft.SETTINGS).read_text())
    for folder in (tmp_path / "x", GOLDEN / "peft" / case)
  )
  theirs["lora_dropout"] = 0.0
  for settings in (ours, theirs):
    settings["target_modules"] = sorted(settings["target_modules"])
  assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_out_and_in_bit_for_bit(dtype, tmp_path):
  config = dataclasses.replace(SMALL, lora=Lora(3, 1.5, rslora=True))
  written = jax.tree.map(lambda x: x.astype(dtype), adapters(config))
  peft.save(tmp_path / "x", config, written)
  read, loaded = peft.load(tmp_path / "x", SMALL)
  assert read == config
  assert_same(loaded, jax.tree.map(lambda x: x.astype(jnp.float32), written))
  with pytest.raises(FileExistsError, match="choose another"):
    peft.save(tmp_path / "x", config, written)
  assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_each_device_gets_its_part(tmp_path):
  peft.save(tmp_path / "x", ADAPTED, adapters())
  mesh = sharding.make_mesh(fsdp=2, tensor=2)
  _, loaded = peft.load(tmp_path / "x", SMALL, mesh=mesh)
  assert_same(loaded, adapters())
  a_NKGHR = loaded["layers"]["attention"]["o_lora"]["a_KGHR"]
  assert a_NKGHR.sharding.spec[1] == "tensor"


def test_a_broken_off_save_leaves_nothing(tmp_path):
  with pytest.raises(KeyError):
    peft.save(tmp_path / "x", ADAPTED, {"layers": {}})
  assert not list(tmp_path.iterdir())
  with pytest.raises(ValueError, match="no lora"):
    peft.save(tmp_path / "x", SMALL, {})


@pytest.fixture
def folder(tmp_path):
  peft.save(tmp_path / "x", ADAPTED, adapters())
  return tmp_path / "x"


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("use_dora", True),
    ("bias", "all"),
    ("lora_bias", True),
    ("modules_to_save", ["lm_head"]),
    ("rank_pattern", {"q_proj": 4}),
    ("layers_to_transform", [0]),
    ("fan_in_fan_out", True),
    ("init_lora_weights", "pissa"),
    ("a_switch_of_tomorrow", 3),
    ("peft_type", "IA3"),
    ("target_modules", "all-linear"),
    ("target_modules", ["q_proj", "embed_tokens"]),
    ("target_modules", ["q"]),
    ("target_modules", []),
    ("r", 0),
    ("r", "2"),
    ("lora_alpha", None),
  ],
)
def test_settings_of_another_function_are_refused(name, value, folder):
  path = folder / peft.SETTINGS
  settings = json.loads(path.read_text())
  path.write_text(json.dumps(settings | {name: value}))
  word = {"r": "rank|r is", "target_modules": "target"}.get(name, name)
  with pytest.raises(ValueError, match=rf"{peft.SETTINGS}: .*({word})"):
    peft.load(folder, SMALL)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"peft_type": "LORA"}'])
def test_settings_that_say_nothing_are_refused(text, folder):
  (folder / peft.SETTINGS).write_text(text)
  with pytest.raises(ValueError, match=peft.SETTINGS):
    peft.load(folder, SMALL)


NAME = "base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight"


def without(held):
  del held[NAME]


def surplus(held):
  held["base_model.model.lm_head.lora_A.weight"] = held[NAME]


def turned(held):
  held[NAME] = np.ascontiguousarray(held[NAME].T)


def poisoned(held):
  held[NAME] = np.where(np.arange(2) == 1, np.nan, held[NAME])


@pytest.mark.parametrize(
  ("damage", "said"),
  [
    (without, f"no tensor {NAME}"),
    (surplus, "lm_head.lora_A.weight is no part"),
    (turned, rf"{NAME} is \(2, 16\); .* make it \(16, 2\)"),
    (poisoned, f"{NAME} holds NaN"),
  ],
)
def test_damaged_tensors_are_named(damage, said, folder):
  path = folder / peft.WEIGHTS
  held = safetensors.numpy.load_file(path)
  damage(held)
  held = {name: np.float32(x) for name, x in held.items()}
  safetensors.numpy.save_file(held, path)
  with pytest.raises(ValueError, match=rf"{peft.WEIGHTS}.*{said}"):
    peft.load(folder, SMALL)


@pytest.mark.parametrize("name", [peft.SETTINGS, peft.WEIGHTS])
def test_an_absent_or_truncated_file_is_named(name, folder):
  data = (folder / name).read_bytes()
  (folder / name).write_bytes(data[: len(data) // 2])
  with pytest.raises(ValueError, match=name):
    peft.load(folder, SMALL)
  (folder / name).unlink()
  with pytest.raises(FileNotFoundError, match=name):
    peft.load(folder, SMALL)


def test_another_model_is_noticed(folder):
  wider = dataclasses.replace(SMALL, width=20)
  with pytest.raises(ValueError, match=r"is \(16, 2\); .* make it \(20, 2\)"):
    peft.load(folder, wider)
  deeper = dataclasses.replace(SMALL, layers=3)
  with pytest.raises(ValueError, match=r"no tensor .*layers\.2"):
    peft.load(folder, deeper)
