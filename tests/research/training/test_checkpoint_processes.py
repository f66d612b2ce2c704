"""Checkpoints across processes: kills, other meshes, several writers."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.training import checkpoint

ROOT = pathlib.Path(__file__).parents[3]


def _environment(devices=1):
  flags = f"--xla_force_host_platform_device_count={devices}"
  path = str(ROOT)
  return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu",
          "XLA_FLAGS": flags}  # fmt: skip


def _start(code, *args, devices=1):
  command = [sys.executable, "-c", code, *map(str, args)]
  return subprocess.Popen(
    command,
    env=_environment(devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(process):
  out = process.communicate(timeout=60)[0]
  assert process.returncode == 0, out
  return out


KILLED = """
import sys, time, jax, jax.numpy as jnp
from research.training import checkpoint, manifest
directory, point = sys.argv[1:]
saver = checkpoint.Checkpointer(directory)
saver.save(1, {"x": jnp.arange(8.0)}, {"step": 1})
saver.wait()
def stop(path):
  if point == "sealed":
    seal(path)
  print("half", flush=True)
  time.sleep(60)
if point != "writing":
  seal, manifest.seal = manifest.seal, stop
x = jax.random.normal(jax.random.key(0), (8 if point != "writing" else 2**23,))
saver.save(2, {"x": x}, {"step": 2})
print("saving", flush=True)
saver.wait()
print("committed", flush=True)
time.sleep(60)
"""


def _kill(directory, point):
  child = _start(KILLED, directory, point)
  line = child.stdout.readline()
  while line.strip() != ("saving" if point == "writing" else "half"):
    assert line, "the child died"
    line = child.stdout.readline()
  os.kill(child.pid, signal.SIGKILL)
  assert "committed" not in child.communicate(timeout=60)[0]
  assert child.returncode == -signal.SIGKILL


def _assert_first_survived(directory):
  assert (directory / "tmp-00000002").exists(), "the kill came too late"
  assert checkpoint.steps(directory) == [1]
  abstract = {"x": jax.ShapeDtypeStruct((8,), jnp.float32)}
  with checkpoint.Checkpointer(directory) as saver:
    state, host = saver.restore(abstract)
    assert host == {"step": 1}
    np.testing.assert_array_equal(state["x"], np.arange(8.0))
    assert [path.name for path in directory.iterdir()] == ["00000001"]


def test_sigkill_during_a_write_leaves_the_one_before(tmp_path):
  _kill(tmp_path, "writing")
  _assert_first_survived(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["unsealed", "sealed"])
def test_sigkill_before_the_commit_leaves_the_one_before(tmp_path, point):
  _kill(tmp_path, point)
  _assert_first_survived(tmp_path)


MESH = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from research.training import checkpoint
one, eight = sys.argv[1:]
auto = (AxisType.Auto, AxisType.Auto)
mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=auto)
place = lambda *spec: NamedSharding(mesh, P(*spec))
spec = jax.ShapeDtypeStruct
abstract = {
  "w": spec((8, 6), jnp.float32, sharding=place("fsdp", "tensor")),
  "step": spec((), jnp.int32, sharding=place()),
  "key": spec((), jax.random.key(0).dtype, sharding=place()),
}
state, host = checkpoint.restore(one, abstract)
assert state["w"].sharding == abstract["w"].sharding
assert state["key"].sharding.device_set == set(mesh.devices.flat)
assert len(state["w"].addressable_shards) == 8
assert state["w"].addressable_shards[0].data.shape == (2, 3)
np.testing.assert_array_equal(state["w"], np.arange(48.0).reshape(8, 6))
with checkpoint.Checkpointer(eight) as saver:
  saver.save(2, {**state, "w": jax.jit(lambda x: x * 2)(state["w"])}, host)
"""


def test_lands_on_eight_devices_and_back_on_one(tmp_path):
  w = jnp.arange(48.0).reshape(8, 6)
  state = {"w": w, "step": jnp.int32(4), "key": jax.random.key(3)}
  with checkpoint.Checkpointer(tmp_path / "one") as saver:
    saver.save(1, state, {"seed": 7})
  _finish(_start(MESH, tmp_path / "one", tmp_path / "eight", devices=8))
  abstract = jax.eval_shape(lambda: state)
  back, host = checkpoint.restore(tmp_path / "eight", abstract)
  np.testing.assert_array_equal(back["w"], w * 2)
  assert back["step"] == 4
  draws = [jax.random.bits(s["key"]) for s in (back, state)]
  assert draws[0] == draws[1]
  assert host == {"seed": 7} and len(back["w"].sharding.device_set) == 1


PROCESSES = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_cpu_collectives_implementation", "gloo")
directory, port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))
from research.training import checkpoint
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, P("data"))
values = np.arange(12, dtype=np.float32).reshape(4, 3)
x = jax.make_array_from_callback((4, 3), sharding, lambda i: values[i])
abstract = {"x": jax.ShapeDtypeStruct((4, 3), jnp.float32, sharding=sharding)}
for base in (10, 20):
  with checkpoint.Checkpointer(directory, keep=2) as saver:
    for step in range(base, base + 3):
      saver.save(step, {"x": x * step}, {"step": step})
      saver.wait()
      assert saver.steps()[-1] == step
    state, host = saver.restore(abstract)
    assert host == {"step": step}
    for a, b in zip(state["x"].addressable_shards, x.addressable_shards):
      np.testing.assert_array_equal(a.data, b.data * step)
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_two_processes_write_one_checkpoint(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  children = [_start(PROCESSES, tmp_path, port, i) for i in range(2)]
  for child in children:
    _finish(child)
  assert checkpoint.steps(tmp_path) == [21, 22]
  abstract = {"x": jax.ShapeDtypeStruct((4, 3), jnp.float32)}
  state, host = checkpoint.restore(tmp_path, abstract)
  expected = np.arange(12).reshape(4, 3) * 22
  np.testing.assert_array_equal(state["x"], expected)
  assert host == {"step": 22}
