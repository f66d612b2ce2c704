"""What the H200's compiler makes of decoding's kernel, on any machine.

Run as a program, `python -m tests.compile.test_decode_hopper CASE`, it compiles
one case and prints XLA's temporary bytes.
"""

import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from kernels.decode import decode_attention
from tests.compile import hopper_program, test_hopper


class Case(NamedTuple):
  """A cache of 8 rows, and the shared memory that its kernel takes."""

  S: int
  K: int
  G: int
  H: int
  shared: int
  window: int | None = None
  softcap: float | None = None


CASES = {
  "H64": Case(4096, 2, 4, 64, 158_856),
  "H128": Case(32_768, 8, 4, 128, 183_432),
  "H128-window-softcap": Case(32_768, 8, 4, 128, 183_432, 4096, 30.0),
  "H256": Case(8192, 2, 4, 256, 199_752),
}


def main(name: str) -> None:
  """Compiles a case for an H200, which leaves its account where asked."""
  case = CASES[name]
  topology = topologies.get_topology_desc(
    platform="cuda", target_config=hopper_program.TARGET, topology="1x1x1"
  )
  one = jax.sharding.SingleDeviceSharding(topology.devices[0])
  make = lambda *s, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(
    s, dtype, sharding=one
  )
  k = make(8, case.S, case.K, case.H)
  inputs = make(8, case.K, case.G, case.H), k, k, make(8, dtype=jnp.int32)

  def f(q, k, v, lengths):
    more = {"window": case.window, "softcap": case.softcap}
    return decode_attention(q, k, v, lengths, impl="hopper", **more)

  traced = jax.jit(f).trace(*inputs)
  compiled = traced.lower(lowering_platforms=("cuda",)).compile()
  print(compiled.memory_analysis().temp_size_in_bytes)


@pytest.mark.parametrize("name", CASES)
def test_nothing_spills_and_the_cache_is_not_copied(name, tmp_path):
  if reason := test_hopper.missing():
    pytest.skip(reason)
  done = subprocess.run(
    [sys.executable, "-m", "tests.compile.test_decode_hopper", name],
    cwd=test_hopper.REPOSITORY,
    env={
      **os.environ,
      "MOSAIC_GPU_DUMP_TO": str(tmp_path),
      "JAX_PLATFORMS": "cpu",
      "JAX_ENABLE_COMPILATION_CACHE": "false",
    },
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  [kernel] = test_hopper.account(tmp_path)
  expected = {"registers": 255, "spills": 0, "shared": CASES[name].shared}
  test_hopper.check(name, [kernel], [expected])
  case = CASES[name]
  cache = 2 * 8 * case.S * case.K * case.H * 2
  assert int(done.stdout.split()[-1]) <= cache // 4


if __name__ == "__main__":
  main(sys.argv[1])
