"""Compiles cases for a TPU that is not there: a process of its own.

Reads JSON from stdin, {"chip", "dump", "cases", "block"}, and prints a JSON
line a case. `tests.compile.process` starts it and sets its environment.
"""

import dataclasses
import functools
import json
import pathlib
import re
import sys
import time

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from kernels import attention_tpu, mask, tiles_tpu
from kernels.decode import decode_attention
from kernels.ragged import empty_pages, ragged_paged_attention
from kernels.ring import ring_attention
from tests.compile import bundles, cases
from tests.compile.cases import Case

_VMEM = re.compile(r"(#allocation\d+) \[.*space=vmem, size = (0x[0-9a-f]+)")


def attention(case: Case, array):
  """Returns (f, arguments, the tiles' q and kv) of a call of ours."""
  rule = mask.Rule(case.causal, case.H**-0.5, case.softcap, case.window)
  q = array(1, case.T, case.K, case.G, case.H)
  k = array(1, case.T, case.K, case.H)
  ids = array(1, case.T, dtype=jnp.int32) if case.packed else None
  row = array(1, dtype=jnp.int32) if case.traced else None
  line = array(*q.shape[:-1], dtype=jnp.float32)
  extra = [q, line, line] if case.back else []
  call = attention_tpu.backward if case.back else attention_tpu.forward

  # Each once among the arguments: XLA makes one table of ids for both sides.
  limits = lambda row, ids: mask.Limits(row, row, ids, ids)
  f = lambda row, ids, *xs: call(*xs, rule, limits(row, ids))
  plan = tiles_tpu.choose(q, k, rule, limits(row, ids), case.back)
  return f, (row, ids, q, k, k, *extra), (plan.q, plan.kv)


def going_round(case: Case, devices):
  """Returns (f, arguments) of a ring over all devices, or its derivative."""
  mesh = jax.sharding.Mesh(devices, ("context",))
  along = PartitionSpec(None, "context")
  array = lambda *shape: jax.ShapeDtypeStruct(
    shape, case.dtype, sharding=NamedSharding(mesh, along)
  )
  call = functools.partial(ring_attention, axis_name="context", impl="tpu")
  f = jax.shard_map(
    call, mesh=mesh, in_specs=along, out_specs=along, check_vma=False
  )
  if case.back:
    f = jax.grad(lambda *xs, f=f: f(*xs).astype(jnp.float32).sum(), (0, 1, 2))
  k = array(1, case.T, case.K, case.H)
  return f, (array(1, case.T, case.K, case.G, case.H), k, k)


def decoding(case: Case, array):
  """Returns (f, arguments) of one new token for 8 rows of a cache."""
  q = array(8, case.K, case.G, case.H)
  k = array(8, case.T, case.K, case.H)
  lengths = array(8, dtype=jnp.int32)
  how = {"window": case.window, "softcap": case.softcap, "impl": "tpu"}
  f = functools.partial(decode_attention, **how)
  return f, (q, k, k, lengths)


def paging(case: Case, array):
  """Returns (f, arguments) of 2048 tokens of 32 sequences over a page each."""
  most = case.T // case.page
  dtype = jnp.dtype(case.held or case.dtype)
  make = functools.partial(empty_pages, 8 * most, case.page, case.K, case.H)
  pages = jax.eval_shape(lambda: make(dtype))
  integers = functools.partial(array, dtype=jnp.int32)
  scales = array(2, case.K, dtype=jnp.float32) if case.held else None

  def f(scales, *xs):
    how = {"softcap": case.softcap, "kv_scales": scales}
    return ragged_paged_attention(*xs, impl="tpu", **how)

  q = array(2048, case.K, case.G, case.H)
  k = array(2048, case.K, case.H)
  pages = array(*pages.shape, dtype=dtype)
  where = integers(32, most), integers(32), integers(33)
  return f, (scales, q, k, k, pages, *where)


def splash(case: Case, array, block: int):
  """Returns (f, arguments) of tokamax's kernels at tiles of `block`."""
  from tokamax._src.ops.experimental.tpu.splash_attention import (
    splash_attention_kernel as kernel,
  )
  from tokamax._src.ops.experimental.tpu.splash_attention import (
    splash_attention_mask as masks,
  )

  seen = masks.CausalMask if case.causal else masks.FullMask
  if case.window:
    seen = lambda shape: masks.LocalMask(shape, (case.window - 1, 0), 0)
  config = kernel.SplashConfig(
    *(block, block, block, block, block, block),
    use_experimental_scheduler=True,
  )
  attend = kernel.make_splash_mha(
    seen((case.T, case.T)),
    config=config,
    q_seq_shards=1,
    save_residuals=False,
    downcast_smem_data=False,
  )
  forward = jax.vmap(attend)
  total = lambda *xs: forward(*xs).astype(jnp.float32).sum()
  f = jax.grad(total, (0, 1, 2)) if case.back else forward
  q = array(1, case.K * case.G, case.T, case.H)
  k = array(1, case.K, case.T, case.H)
  return f, (q, k, k)


def vmem(text: str) -> int:
  """Returns the bytes of VMEM that a kernel's buffers and windows take."""
  return sum(int(size, 16) for size in dict(_VMEM.findall(text)).values())


def measure(dump: pathlib.Path, name: str, count) -> dict:
  """Returns what the dump says of the kernels whose name begins with `name`.

  A ring has several, and all of their bundles; else there is one.
  """
  each = lambda end: [p.read_text() for p in dump.glob(f"*-{name}*{end}.txt")]
  texts = each("[0-9]-final_bundles")
  trees = [bundles.program(text) for text in texts]
  found = {
    "bundles": sum(tree.end for tree in trees),
    "spills": sum(bundles.spills(text) for text in texts),
    "vmem": max(vmem(text) for text in each("-post-simplifier-2")),
  }
  runs = count(trees[0])
  if runs is not None:
    found["cost"] = bundles.cost(trees[0], runs)
  return found


def one(case: Case, devices, dump: pathlib.Path, block: int | None) -> dict:
  """Compiles one case; `block` asks for the peer's kernel at that tile."""
  where = SingleDeviceSharding(devices[0])
  array = lambda *shape, dtype=case.dtype: jax.ShapeDtypeStruct(
    shape, dtype, sharding=where
  )
  donated = ()
  attending = "flash_backward" if case.back else "flash_forward"
  if case.ring:
    f, arguments = going_round(case, devices)
    name, count = attending, lambda tree: None
  elif case.decode:
    f, arguments = decoding(case, array)
    name, count = "decode_attention", lambda tree: None
  elif case.page:
    f, arguments = paging(case, array)
    name, count, donated = "ragged_paged", lambda tree: None, (4,)
  elif block is None:
    f, arguments, (q, kv) = attention(case, array)
    name = attending
    count = lambda tree: cases.ours(case, q, kv, tree)
  else:
    f, arguments = splash(case, array, block)
    name = "splash_mha_dkv" if case.back else "splash_mha_fwd"
    count = lambda tree: cases.peers(case, block)
  for path in dump.iterdir():
    path.unlink()
  start = time.perf_counter()
  with jax.default_device(devices[0]):
    traced = jax.jit(f, donate_argnums=donated).trace(*arguments)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
  spent = time.perf_counter() - start
  temporary = compiled.memory_analysis().temp_size_in_bytes
  return {
    "seconds": round(spent, 1),
    "temp": temporary,
    **measure(dump, name, count),
  }


def main() -> None:
  """Answers each case with a line, errors too."""
  asked = json.load(sys.stdin)
  dump = pathlib.Path(asked["dump"])
  name = cases.CHIPS[asked["chip"]]
  topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
  compile_one = functools.partial(one, devices=topology.devices, dump=dump)
  for fields in asked["cases"]:
    case = Case(**fields)
    record = {"name": case.name, **dataclasses.asdict(case)}
    try:
      record |= compile_one(case, block=asked["block"])
    except Exception as error:
      record["error"] = f"{type(error).__name__}: {str(error)[:600]}"
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
  main()
