"""What the H200's compiler makes of the Hopper kernels, on any machine.

Mosaic GPU writes PTX and ptxas's account of registers, spills and shared
memory without a GPU, given jax's CUDA 13 plugin (the extra `cuda`). The
numbers are compared with tests/golden/hopper_compile.json.
"""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "hopper_compile.json"
HEADS = (64, 128, 256)
KINDS = ("causal", "full", "window", "softcap", "packed", "traced")
CASES = [
  f"{way} {H} {kind}"
  for way in ("forward", "backward")
  for H in HEADS
  for kind in KINDS
]
FAST = ["forward 128 causal", "forward 64 packed", "backward 64 causal"]
PROGRAM = pathlib.Path(__file__).with_name("hopper_program.py")


def missing():
  """Why nothing can be compiled for the H200 here, or None."""
  for name in ("jax_cuda13_plugin", "jax_plugins.xla_cuda13", "nvidia.cu13"):
    try:
      found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
      found = None
    if found is None:
      return f"no {name}: install the extra `cuda` to compile for the H200"
  return None


def account(folder):
  """[{registers, spills, shared, wgmma}] of each kernel dumped to a folder."""
  kernels = []
  for path in sorted(folder.glob("*.ptxas")):
    text = path.read_text()
    log = path.with_suffix(".mlir-passes.log").read_text()
    kernels.append(
      {
        "registers": int(re.findall(r"Used (\d+) registers", text)[-1]),
        "spills": int(re.findall(r"(\d+) bytes spill stores", text)[-1]),
        "shared": int(re.findall(r"smem_bytes = (\d+)", log)[-1]),
        "wgmma": path.with_suffix(".ptx").read_text().count("wgmma.mma_async"),
        "ignored setmaxnreg": text.count("C7508"),
      }
    )
  return kernels


def compile_cases(names, folder):
  """Compiles in a child, whose environment holds the dump's folder."""
  out = {}
  for name in names:
    dump = folder / name.replace(" ", "_")
    dump.mkdir()
    environment = {
      **os.environ,
      "MOSAIC_GPU_DUMP_TO": str(dump),
      "JAX_PLATFORMS": "cpu",
      "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    done = subprocess.run(
      [sys.executable, str(PROGRAM), name],
      cwd=REPOSITORY,
      env=environment,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out[name] = account(dump)
  return out


def check(name, kernels, expected):
  """Raises AssertionError where a kernel is worse than the table's."""
  assert len(kernels) == len(expected), name
  for now, then in zip(kernels, expected, strict=True):
    assert now["wgmma"], f"{name}: no wgmma"
    assert not now["ignored setmaxnreg"], name
    assert not now["spills"], (name, now)
    assert now["registers"] <= 1.05 * then["registers"], (name, now, then)
    assert now["shared"] <= then["shared"], (name, now, then)


@pytest.mark.parametrize(
  "name",
  [pytest.param(x, marks=() if x in FAST else pytest.mark.slow) for x in CASES],
)
def test_registers_spills_and_shared_memory(name, tmp_path, request, golden):
  del golden  # asked for, so that --golden runs this test too
  if reason := missing():
    pytest.skip(reason)
  kernels = compile_cases([name], tmp_path)[name]
  if request.config.getoption("--golden"):
    table = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    table[name] = kernels
    GOLDEN.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
  check(name, kernels, json.loads(GOLDEN.read_text())[name])


def test_the_table_is_whole_and_nothing_in_it_spills():
  table = json.loads(GOLDEN.read_text())
  assert sorted(table) == sorted(CASES)
  for name, kernels in table.items():
    check(name, kernels, kernels)


def test_control():
  """A table's kernel with one spilled register, or without wgmma, fails."""
  good = {
    "registers": 168, "spills": 0, "shared": 9, "wgmma": 8,
    "ignored setmaxnreg": 0,
  }  # fmt: skip
  check("x", [good], [good])
  for key, bad in [
    ("spills", 4), ("registers", 200), ("shared", 10), ("wgmma", 0),
    ("ignored setmaxnreg", 1),
  ]:  # fmt: skip
    with pytest.raises(AssertionError):
      check("x", [{**good, key: bad}], [good])
