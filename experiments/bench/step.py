"""Train step and decoding of the demo's student, beside their floors.

python -m experiments.bench.step      (make bench)

The floor of a step is its matmul FLOPs (6 a parameter and token, embeddings
once, and attention's) at the rate of a large square matmul measured in the
same run; that of decoding is reading parameters and cache once a token at the
measured copy bandwidth.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from research.losses import supervised
from research.models import presets, transformer
from research.models.config import Model
from research.sampling import engine
from research.sampling.sampler import Sampling
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Batch

ROWS, LENGTH, NEW, DECODED = 16, 128, 64, 256


def seconds(f: Callable[[], Any], repeats: int = 7) -> float:
  """Returns the median wall time of a warm call."""
  jax.block_until_ready(f())
  spent = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(f())
    spent.append(time.perf_counter() - start)
  return float(np.median(spent))


def rates() -> tuple[float, float]:
  """Returns this machine's fp32 matmul FLOP/s and copy bytes/s."""
  n = 2048
  square = jnp.ones((n, n))
  matmul = jax.jit(lambda x: x @ x)
  flops = 2 * n**3 / seconds(lambda: matmul(square))
  long = jnp.ones(1 << 26)
  copy = jax.jit(lambda x: x + 1)
  return flops, 2 * long.nbytes / seconds(lambda: copy(long))


def training(model: Model) -> tuple[float, float]:
  """Returns (seconds, FLOPs) of one step of ROWS x LENGTH tokens."""
  optimizer = optimizers.make(optimizers.Optimizer(1e-3), 100)
  loss = functools.partial(supervised.loss, block=2048)
  objective = objectives.imitation(model, loss)
  step = jax.jit(
    functools.partial(steps.update, objective, optimizer, clip=1.0)
  )
  params = transformer.init(model, jax.random.key(0))
  state = steps.new_state(params, optimizer, jax.random.key(1))
  shape = (ROWS, LENGTH)
  tokens = np.random.default_rng(0).integers(0, 256, shape).astype(np.int32)
  positions = np.broadcast_to(np.arange(LENGTH), shape)
  batch: Any = (tokens, np.ones(shape, np.float32), positions)
  batch = Batch(*batch, np.ones(shape, np.int32))  # pyright: ignore
  spent = seconds(lambda: step(state, batch)[1])
  heads = model.kv_heads * model.groups * model.head_dim
  attention = 4 * LENGTH * heads * model.layers
  flops = ROWS * LENGTH * (6 * transformer.count(model) + 3 * attention)
  return spent, flops


def decoding(model: Model) -> tuple[float, float]:
  """Returns (seconds, bytes read) a token of DECODED rows, none stopping."""
  params = transformer.init(model, jax.random.key(0))
  prompts = np.ones((DECODED, 16), np.int32)
  lengths = np.full(DECODED, 16, np.int32)
  keys = jax.random.split(jax.random.key(0), DECODED)
  run = lambda: engine.generate(
    model,
    params,
    jnp.asarray(prompts),
    jnp.asarray(lengths),
    keys,
    sampling=Sampling(),
    new_tokens=NEW,
    stop=-1,
  )
  cache = transformer.empty_cache(model, DECODED, 16 + NEW)
  read = sum(x.nbytes for x in jax.tree.leaves((cache, params)))
  return seconds(run, 3) / NEW, read


def main() -> None:
  """Prints the two lines of the table."""
  model = presets.make("tiny")
  flops, bandwidth = rates()
  table = Table(title=f"{transformer.count(model) / 1e6:.2f} M, fp32", box=None)
  for head in ("", "ms", "floor ms", "of floor", "tokens/s"):
    table.add_column(head, justify="right")
  spent, work = training(model)
  lines = [("train step", spent, work / flops, ROWS * LENGTH)]
  spent, read = decoding(model)
  lines.append(("decode a token", spent, read / bandwidth, DECODED))
  for name, spent, floor, tokens in lines:
    cells = (f"{1e3 * spent:.1f}", f"{1e3 * floor:.2f}", f"{floor / spent:.0%}")
    table.add_row(name, *cells, f"{tokens / spent:,.0f}")
  rate = f"{flops / 1e9:.0f} GFLOP/s matmul, {bandwidth / 1e9:.1f} GB/s copy"
  Console().print(table, rate)


if __name__ == "__main__":
  main()
