"""The memory table's own parts; what libtpu plans is in experiments/results."""

import jax
import pytest

from experiments.bench import memory
from research import sharding
from research.models import presets
from research.models.config import Lora


def test_without_libtpu_it_says_what_to_do(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(memory, "BESIDE", tmp_path)
  monkeypatch.setattr(memory.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(SystemExit, match=r"no libtpu in .*: make compilers"):
    memory.main([])
  assert not capsys.readouterr().out  # no half of a table


def test_a_frozen_base_is_what_a_run_holds():
  model = presets.make("tiny", dtype="bfloat16", lora=Lora(2, 2.0))
  mesh = sharding.make_mesh(fsdp=8)
  base = memory.frozen(model, mesh)
  found = jax.tree_util.tree_leaves_with_path(base)
  assert found and not any("_lora" in jax.tree_util.keystr(p) for p, _ in found)
  for path, x in found:
    norm = path[-1].key.startswith("scale")
    assert x.dtype == ("float32" if norm else "bfloat16"), path
    assert x.sharding.mesh == mesh


def test_the_callers_settings_of_jax_stay_behind(monkeypatch):
  monkeypatch.setenv("JAX_DEBUG_KEY_REUSE", "true")
  monkeypatch.setenv("XLA_FLAGS", "--xla_odd=1")
  monkeypatch.setenv("PYTHONPATH", "elsewhere")
  found = memory.environment("--xla_jf=2")
  assert "JAX_DEBUG_KEY_REUSE" not in found and "XLA_FLAGS" not in found
  assert found["LIBTPU_INIT_ARGS"] == "--xla_jf=2"
  assert found["PYTHONPATH"] == f"{memory.BESIDE}:elsewhere"
