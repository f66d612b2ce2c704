"""A checkpoint that stages start from: read as it is, and known again."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import settings, student
from experiments.stages import checkpoint
from research import sharding
from research.models import huggingface, quantize, transformer
from tests.experiments import tiny
from tests.experiments.test_adapters import assert_same

MODEL = settings.build(settings.Model, tiny.get_config().model.to_dict())
NARROW = dataclasses.replace(MODEL, dtype="bfloat16")
MESH = sharding.make_mesh(fsdp=2, tensor=2)


@pytest.fixture
def opened(tmp_path):
  """opened(dtype): (config, inputs) of a run that computes in bf16."""

  def make(dtype):
    params = transformer.init(MODEL, jax.random.key(3))
    huggingface.save(tmp_path / "x", MODEL, params, dtype=dtype)
    run = settings.Run(0, "bytes", NARROW, settings.Mesh(fsdp=2, tensor=2))
    asked = checkpoint.Config(run, str(tmp_path / "x"))
    told = checkpoint.run(asked, {}, tmp_path)
    config = types.SimpleNamespace(run=run, teacher_bits=None)
    return config, {"base": {"folder": str(tmp_path), **told}}

  return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", [None, 8])
def test_what_is_frozen_is_never_widened(opened, monkeypatch, dtype, bits):
  """The same numbers as by way of fp32, and no fp32 matrix on the way."""
  config, inputs = opened(dtype)
  wide = student.load(config, inputs, "base", MESH)
  assert {x.dtype for x in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
  wanted = wide if bits is None else quantize.quantize(wide, bits)
  wanted = transformer.in_compute_dtype(NARROW, wanted)

  held, load = [], huggingface.load
  spied = lambda *a, **k: held.append(load(*a, **k)) or held[-1]
  monkeypatch.setattr(huggingface, "load", spied)
  found = student.read_only(config, inputs, "base", bits, MESH)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    assert x.dtype == y.dtype or x.size <= MODEL.width * MODEL.layers
  ((_, params),) = held
  matrices = {x.dtype.name for x in jax.tree.leaves(params) if x.ndim > 2}
  assert matrices == {dtype if bits else "bfloat16"}


def change(folder, at):
  path = folder / "model.safetensors"
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(bytes(data))


def test_a_folder_that_changed_is_refused(opened, tmp_path):
  config, inputs = opened("float32")
  before = student.load(config, inputs, "base", MESH)
  change(tmp_path / "x", -1)
  for read in (student.load, student.read_only):
    extra = (None, MESH) if read is student.read_only else (MESH,)
    with pytest.raises(ValueError, match=r"x has changed since this run"):
      read(config, inputs, "base", *extra)
  with pytest.raises(ValueError, match=r"x has changed since this run"):
    student.teacher(config, inputs, MESH, "base")
  change(tmp_path / "x", -1)
  assert_same(student.load(config, inputs, "base", MESH), before)


def test_the_same_numbers_in_other_files_are_the_same(opened, tmp_path):
  inputs = opened("float32")[1]
  _, params = huggingface.load(tmp_path / "x")
  huggingface.save(tmp_path / "y", MODEL, params, most=20_000)
  mark = inputs["base"]["fingerprint"]
  assert student.checkpoint(tmp_path / "y")["fingerprint"] == mark
  params["final_norm"]["scale_D"] += 1
  huggingface.save(tmp_path / "z", MODEL, params)
  assert student.checkpoint(tmp_path / "z")["fingerprint"] != mark
