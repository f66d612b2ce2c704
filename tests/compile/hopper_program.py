"""Compiles one case of test_hopper.py for an H200: python FILE "CASE"."""

import pathlib
import sys

import jax
import jax.numpy as jnp
from jax.experimental import topologies

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from kernels import attention_hopper
from kernels.mask import Limits, Rule

TARGET = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472
threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
memory_bandwidth: 4800000000000 l2_cache_size: 62914560 clock_rate_ghz: 1.98
device_memory_size: 150754820096 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 }
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H200"
"""
T, K, G = 4096, 2, 4


def main(name):
  way, H, kind = name.split()
  H = int(H)
  topology = topologies.get_topology_desc(
    platform="cuda", target_config=TARGET, topology="1x1x1"
  )
  one = jax.sharding.SingleDeviceSharding(topology.devices[0])
  make = lambda dtype, *s: jax.ShapeDtypeStruct(s, dtype, sharding=one)
  q, k = make(jnp.bfloat16, 1, T, K, G, H), make(jnp.bfloat16, 1, T, K, H)
  row, ids = make(jnp.float32, 1, T, K, G), make(jnp.int32, 1, T)
  scalar = make(jnp.int32, 1)
  rule = Rule(
    kind != "full",
    H**-0.5,
    softcap=50.0 if kind == "softcap" else None,
    window=1024 if kind == "window" else None,
  )
  packed = kind in ("packed", "traced")

  def limits(ids, at):
    traced = at if kind == "traced" else None
    return Limits(traced, traced, *((ids, ids) if packed else (None, None)))

  def forward(q, k, v, ids, at):
    return attention_hopper.forward(q, k, v, rule, limits(ids, at))

  def backward(q, k, v, do, lse, delta, ids, at):
    rest = (do, lse, delta, rule, limits(ids, at))
    return attention_hopper.backward(q, k, v, *rest)

  if way == "forward":
    f, inputs = forward, (q, k, k, ids, scalar)
  else:
    f, inputs = backward, (q, k, k, q, row, row, ids, scalar)
  jax.jit(f).trace(*inputs).lower(lowering_platforms=("cuda",)).compile()


if __name__ == "__main__":
  main(sys.argv[1])
