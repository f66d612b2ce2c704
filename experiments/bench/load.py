"""Loading a checkpoint: peak memory and time, beside transformers'.

python -m experiments.bench.load [--preset=qwen2_5_1_5b] [--out=FILE.md]

Writes random bf16 weights of a published size to a temporary folder and loads
them in processes of their own, which tell their peak resident memory and their
seconds. The floor of the memory is the checkpoint's size. The files were just
written, so they come from the page cache. transformers loads in .venv-torch
(`make oracle`), where that is.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.bench import _table
from research.models import hf_files, huggingface, presets, transformer

_PRESET = flags.DEFINE_string("preset", "qwen2_5_1_5b", "The model's size.")
TORCH = pathlib.Path(".venv-torch/bin/python")
# getrusage's peak is inherited from the parent that forked; VmHWM is not.
_TELL = """
seconds = time.perf_counter() - start
status = dict(x.split(":", 1) for x in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "share": share}))
"""
OURS = (
  """
import json, sys, time
import jax
from research import sharding
from research.models import huggingface
n = jax.device_count()
mesh = sharding.make_mesh(fsdp=n) if n > 1 else None
start = time.perf_counter()
_, params = huggingface.load(sys.argv[1], mesh=mesh)
jax.block_until_ready(params)
held = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(params)]
share = sum(held) / sum(x.nbytes for x in jax.tree.leaves(params))
"""
  + _TELL
)
THEIRS = (
  """
import json, sys, time
import torch, transformers
start = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained(
  sys.argv[1], dtype=torch.bfloat16
)
for p in model.parameters():  # a mapped file is read when it is touched
  p.clone()
share = 1.0
"""
  + _TELL
)


def synthesise(folder: pathlib.Path) -> int:
  """Writes random weights of the preset; returns their bytes."""
  config = presets.make(_PRESET.value, dtype="bfloat16")
  shapes = jax.tree.map(
    lambda box: box.value.shape,
    transformer.abstract(config),
    is_leaf=lambda x: hasattr(x, "names"),
  )
  leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda x: type(x) is tuple)
  keys = jax.random.split(jax.random.key(0), len(leaves))
  drawn = [
    jax.random.normal(key, shape, jnp.bfloat16)
    for key, shape in zip(keys, leaves, strict=True)
  ]
  huggingface.save(folder, config, jax.tree.unflatten(tree, drawn))
  return hf_files.sizes(hf_files.index(folder))


def load(python: pathlib.Path, program: str, folder: pathlib.Path, n: int):
  """Returns what a process says that loads `folder` over n devices."""
  flag = f"--xla_force_host_platform_device_count={n}"
  done = subprocess.run(
    [python, "-c", program, folder],
    env=os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> None:
  """Prints the table, and writes it where it was asked to."""
  del argv
  here = pathlib.Path(sys.executable)
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary) / "checkpoint"
    size = synthesise(folder)
    told = {"ours": load(here, OURS, folder, 1)}
    told["ours, fsdp over 8 devices"] = load(here, OURS, folder, 8)
    if TORCH.exists():
      told["transformers"] = load(TORCH, THEIRS, folder, 1)
  lines = [
    f"{_PRESET.value}: {size / 1e9:.2f} GB of bf16 in safetensors, CPU.\n",
    "| loader | seconds | peak RSS, GB | over the size | of it on a device |",
    "| --- | --- | --- | --- | --- |",
  ]
  for name, t in told.items():
    lines.append(
      f"| {name} | {t['seconds']:.1f} | {t['peak'] / 1e9:.2f} | "
      f"{t['peak'] / size:.2f} | {t['share']:.3f} |"
    )
  print("\n".join(lines))
  _table.keep(lines)


if __name__ == "__main__":
  app.run(main)
