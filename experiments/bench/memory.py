"""Does a student fit? Memory of one train step, by the TPU's own compiler.

python -m experiments.bench.memory [--out=FILE.md]

Compiles the step for chips that are not there (`make compilers` brings libtpu
into .venv-tpu), a process a chip, and prints what a device holds: parameters,
moments and inputs, then the temporaries of forward and backward. Of a LoRA the
base is frozen in bf16, its norms in fp32. Parameters of a full student and all
moments are fp32.
"""

import functools
import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import linen as nn
from jax.experimental import topologies
from jax.sharding import Mesh

from experiments import loop
from experiments.bench import _table
from research import sharding
from research.losses import supervised
from research.models import lora, presets, transformer
from research.models.config import Lora, Model
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Batch

_CHIP = flags.DEFINE_string("chip", None, "Print JSON for this chip alone.")
BESIDE = pathlib.Path(__file__).parents[2] / ".venv-tpu"  # `make compilers`
CHIPS = {  # topologies by their number of chips
  "v5p": {4: "v5p:2x2x1", 16: "v5p:2x2x4", 64: "v5p:4x4x4"},
  "v6e": {4: "v6e:2x2", 16: "v6e:4x4", 64: "v6e:8x8"},
}
STUDENTS = {
  "qwen2_5_0_5b": 4,
  "qwen2_5_1_5b": 4,
  "qwen2_5_7b": 16,
  "qwen2_5_32b": 64,
}
LENGTH = 4096
ROWS = 2  # a device
RANK = 64
OPTIMIZER = optimizers.Optimizer(learning_rate=1e-5)
_USED = re.compile(r"Used ([\d.]+)([MG]) of ([\d.]+)G hbm")


def batch(mesh: Mesh) -> Batch:
  """Returns the abstract inputs of a step: full rows, split over devices."""
  shape = ROWS * mesh.size, LENGTH
  part = sharding.spec(mesh, "BT", shape, sharding.ACTIVATIONS)
  where = jax.sharding.NamedSharding(mesh, part)
  array: Any = lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
  ids = array(jnp.int32)
  return Batch(ids, array(jnp.float32), ids, ids)


def frozen(model: Model, mesh: Mesh) -> dict:
  """Returns the abstract base of a LoRA as a run holds it, split over chips."""
  base, _ = lora.split(transformer.abstract(model))
  narrow = functools.partial(transformer.in_compute_dtype, model)
  place = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
  where = sharding.of_parameters(base, mesh)
  return jax.tree.map(place, jax.eval_shape(narrow, nn.unbox(base)), where)


def compiled(model: Model, mesh: Mesh) -> jax.stages.Compiled:
  """Returns the train step of supervised distillation for a mesh."""
  optimizer = optimizers.make(OPTIMIZER, 1000)
  loss = functools.partial(supervised.loss, block=512 * mesh.size)
  objective = objectives.imitation(model, loss, mesh)

  def fresh():
    params = transformer.init(model, jax.random.key(0))
    params = lora.trained(model, params)
    return steps.new_state(params, optimizer, jax.random.key(1))

  _, state = loop.begin(model, mesh, fresh)
  held = None
  if model.lora is not None:
    objective, held = lora.over(objective), (frozen(model, mesh), None)
  step = steps.jitted(objective, optimizer, clip=1.0)
  traced = step.trace(state, held, batch(mesh))
  return traced.lower(lowering_platforms=("tpu",)).compile()


def measure(preset: str, adapters: bool, mesh: Mesh) -> dict:
  """Returns the bytes that a step holds on a device, or would have to."""
  model = presets.make(
    preset,
    dtype="bfloat16",
    remat="everything",
    lora=Lora(RANK, RANK) if adapters else None,
  )
  try:
    found: Any = compiled(model, mesh).memory_analysis()
  except jax.errors.JaxRuntimeError as error:
    used = _USED.search(str(error))
    if used is None:
      raise
    unit = {"M": 2**20, "G": 2**30}[used[2]]
    return {"total": float(used[1]) * unit, "hbm": float(used[3]) * 2**30}
  held = found.argument_size_in_bytes
  extra = found.output_size_in_bytes - found.alias_size_in_bytes
  temporary = found.temp_size_in_bytes
  return {
    "held": held,
    "temporary": temporary,
    "total": held + extra + temporary,
  }


def answer(chip: str) -> None:
  """Prints a line of JSON a student for one chip."""
  for preset, n in STUDENTS.items():
    topology = topologies.get_topology_desc(
      platform="tpu", topology_name=CHIPS[chip][n]
    )
    mesh = sharding.make_mesh(fsdp=n, devices=topology.devices)
    for adapters in (False, True):
      told = {"chip": chip, "preset": preset, "chips": n, "lora": adapters}
      told |= measure(preset, adapters, mesh)
      print(json.dumps(told), flush=True)


def has_libtpu() -> bool:
  """Says whether the TPU's compiler is installed, here or beside."""
  beside = (BESIDE / "libtpu").is_dir()
  return beside or importlib.util.find_spec("libtpu") is not None


def environment(flags: str = "") -> dict[str, str]:
  """Returns what a process needs that compiles for TPUs where there is none.

  The caller's own settings of jax and XLA are left out; `flags` are libtpu's.
  """
  ours = ("XLA_FLAGS", "JAX_", "LIBTPU")
  kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
  path = [str(BESIDE), *filter(None, [kept.get("PYTHONPATH")])]
  return kept | {
    "PYTHONPATH": os.pathsep.join(path),
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    # Else two processes wait for one another's lock.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "LIBTPU_INIT_ARGS": flags,
  }


def ask(chip: str) -> Iterator[dict]:
  """Yields what a process says that sees libtpu and no device.

  Raises:
    RuntimeError: it broke off.
  """
  command = [sys.executable, "-m", "experiments.bench.memory", f"--chip={chip}"]
  with subprocess.Popen(
    command, env=environment(), stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout is not None
    yield from map(json.loads, process.stdout)
  if process.returncode:
    raise RuntimeError(f"compiling for {chip} broke off: see above")


def row(told: dict) -> str:
  """Returns a student's line of the table."""
  gib = lambda name: f"{told[name] / 2**30:.2f}" if name in told else ""
  fits = f"no: {gib('hbm')} there" if "hbm" in told else "yes"
  kind = f"LoRA, rank {RANK}" if told["lora"] else "full"
  cells = [told["preset"], kind, f"{told['chips']} {told['chip']}"]
  cells += [gib("held"), gib("temporary"), gib("total"), fits]
  return f"| {' | '.join(cells)} |"


def main(argv: list[str]) -> None:
  """Prints the table, and writes it where it was asked to."""
  del argv
  if _CHIP.value is not None:
    answer(_CHIP.value)
    return
  if not has_libtpu():
    sys.exit(f"error: there is no libtpu in {BESIDE}: make compilers")
  lines = [
    f"One step of supervised distillation: {ROWS} rows of {LENGTH} tokens a "
    "device, bf16 compute, AdamW in fp32, every layer recomputed, parameters "
    "split over all chips. GiB a device, as libtpu's compiler plans them: "
    "nothing ran.\n",
    "| student | trained | chips | held | temporary | together | fits |",
    "| --- | --- | --- | --- | --- | --- | --- |",
  ]
  print("\n".join(lines))
  for told in itertools.chain.from_iterable(map(ask, CHIPS)):
    lines.append(row(told))
    print(lines[-1], flush=True)
  _table.keep(lines)


if __name__ == "__main__":
  app.run(main)
