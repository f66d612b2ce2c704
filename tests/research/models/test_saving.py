"""What is not written as a checkpoint, and leaves nothing behind."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from research import sharding
from research.models import huggingface, presets, quantize, transformer
from tests.research.models.test_huggingface import GEMMA3, assert_same, make

WRONG = {
  "wider": ({"mlp": 96}, "mlp/down_FD is quantised or "),
  "fewer layers": ({"layers": 1}, "quantised or "),
  "tied": ({"tied": True}, "unembed_VD is no parameter"),
  "without norms": ({"qk_norm": False}, "scale_H is no parameter"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_parameters_of_another_config_are_not_written(kind, tmp_path):
  config = presets.make("tiny", tied=False, layers=2, mlp=48)
  changes, message = WRONG[kind]
  other = dataclasses.replace(config, **changes)
  with pytest.raises(ValueError, match=message):
    huggingface.save(tmp_path / "x", other, make(config))
  assert not list(tmp_path.iterdir())


def test_what_is_not_finite_or_in_few_bits_is_not_written(tmp_path):
  config = presets.make("tiny", layers=2)
  params = make(config)
  narrow = quantize.quantize(params, 8)
  with pytest.raises(ValueError, match="is quantised"):
    huggingface.save(tmp_path / "x", config, narrow)
  params["layers"]["mlp"]["up_DF"] *= jnp.nan
  with pytest.raises(ValueError, match=r"up_proj\.weight holds NaN"):
    huggingface.save(tmp_path / "x", config, params)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "shape",
  [
    pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
    {"fsdp": 2, "tensor": 4},
  ],
)
def test_from_a_mesh_as_from_one_device(shape, tmp_path):
  """The same bytes, in several files, and loaded the same."""
  config = dataclasses.replace(GEMMA3, dtype="bfloat16")
  mesh, params = sharding.make_mesh(**shape), make(config)
  where = sharding.of_parameters(transformer.abstract(config), mesh)
  placed = jax.device_put(params, where)
  assert any(not x.is_fully_replicated for x in jax.tree.leaves(placed))
  for name, held in (("one", params), ("mesh", placed)):
    huggingface.save(tmp_path / name, config, held, most=20_000)
  files = sorted((tmp_path / "one").iterdir())
  assert len(files) > 4
  for path in files:
    other = tmp_path / "mesh" / path.name
    assert other.read_bytes() == path.read_bytes(), path.name
  assert len(list((tmp_path / "mesh").iterdir())) == len(files)
  assert_same(huggingface.load(tmp_path / "mesh")[1], params)
  assert_same(huggingface.load(tmp_path / "mesh", mesh=mesh)[1], params)


def test_another_dtype_is_written_as_it_would_be_cast(tmp_path):
  config = presets.make("tiny", layers=2)
  params = make(config, jnp.float32)
  huggingface.save(tmp_path / "x", config, params, dtype="bfloat16")
  found, narrow = huggingface.load(tmp_path / "x")
  assert found == dataclasses.replace(config, dtype="bfloat16")
  assert_same(narrow, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))
  # finite, until bf16 rounds it up
  params["embed_VD"] = jnp.full_like(params["embed_VD"], 3.4e38)
  with pytest.raises(
    ValueError, match=r"embed_tokens\.weight holds NaN or inf"
  ):
    huggingface.save(tmp_path / "y", config, params, dtype="bfloat16")


def test_a_frozen_dtype_leaves_norms_as_they_are(tmp_path):
  config = presets.make("tiny", layers=2)
  params = make(config, jnp.float32)
  huggingface.save(tmp_path / "x", config, params)
  narrow = dataclasses.replace(config, dtype="bfloat16")
  found = huggingface.load(tmp_path / "x", dtype="bfloat16")[1]
  assert_same(found, transformer.in_compute_dtype(narrow, params))
