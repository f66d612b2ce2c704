"""Attention and vocabulary kernels beside their peers and their floors.

python -m experiments.bench.kernels [--out=experiments/results/kernels.md]

On a Hopper GPU: forward, backward, packed and windowed attention and decoding
in bf16, beside cuDNN through jax.nn and tokamax where it is installed. On a
CPU: impl="xla" beside jax.nn at the quickstart's shapes, and token_logprobs
beside dense logits. All contenders of a line are timed in turn, round after
round; a figure is the median. The floor is the larger of FLOPs and bytes (each
operand read once, each result written once) at the matmul and copy rates that
the same run measured.
"""

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

import kernels
from experiments.bench import _table

ROUNDS = 9
SHORTEST = 0.02  # seconds that a sample lasts at least
PRODUCTS = {"forward": 2, "backward": 5, "both": 7}  # of [T, S] by H

Calls = dict[str, Callable[[], Any]]


class Line(NamedTuple):
  """What is timed, and the least work it can be done with."""

  name: str
  calls: Calls
  flops: float
  bytes: float


def medians(calls: Calls) -> dict[str, float]:
  """Returns seconds a warm call, the contenders timed in turn."""
  repeats, spent = {}, {name: [] for name in calls}
  for name, call in calls.items():
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    once = time.perf_counter() - start
    repeats[name] = max(1, round(SHORTEST / once))
  for _ in range(ROUNDS):
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready([call() for _ in range(repeats[name])])
      spent[name].append((time.perf_counter() - start) / repeats[name])
  return {name: float(np.median(times)) for name, times in spent.items()}


def ceilings(n: int, dtype: Any, size: int) -> tuple[float, float]:
  """Returns matmul FLOP/s of n x n and copy bytes/s of `size` bytes."""
  square = jax.random.normal(jax.random.key(0), (n, n), dtype)
  long = jax.random.normal(jax.random.key(1), (size // 4,))
  matmul, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
  spent = medians({"m": lambda: matmul(square), "c": lambda: copy(long)})
  return 2 * n**3 / spent["m"], 2 * long.nbytes / spent["c"]


def operands(B: int, T: int, K: int, G: int, H: int, dtype: Any) -> list:
  """Returns random q_BTKGH, k_BSKH, v_BSKH and the output's cotangent."""
  q, k = (B, T, K, G, H), (B, T, K, H)
  keys = jax.random.split(jax.random.key(0), 4)
  shapes = zip(keys, (q, k, k, q), strict=True)
  return [jax.random.normal(key, shape, dtype) for key, shape in shapes]


def library(attend: Callable[..., Any], q_BTKGH, k_BSKH, v_BSKH) -> Any:
  """Calls a peer that wants [B, T, heads, H]."""
  B, T, K, G, H = q_BTKGH.shape
  return attend(q_BTKGH.reshape(B, T, K * G, H), k_BSKH, v_BSKH)


def timed(attend: Callable[..., Any], xs: list, part: str) -> Callable:
  """Returns a warm call of a part of attention: forward, backward or both."""
  *inputs, do = xs
  forward = jax.jit(attend)
  if part == "forward":
    return lambda: forward(*inputs)

  def both(q, k, v, do):
    o, pull = jax.vjp(attend, q, k, v)
    return pull(do.reshape(o.shape))

  if part == "both":
    derivative = jax.jit(both)
    return lambda: derivative(*inputs, do)
  o, pull = jax.vjp(forward, *inputs)
  do = do.reshape(o.shape)
  backward = jax.jit(lambda pull, do: pull(do))
  return lambda: backward(pull, do)


def peers(window: int | None) -> dict[str, Callable[..., Any]]:
  """Returns the attentions that this machine has beside ours, on a GPU."""
  near = None if window is None else (window - 1, 0)
  cudnn = functools.partial(
    jax.nn.dot_product_attention,
    is_causal=True,
    local_window_size=near,
    implementation="cudnn",
  )
  found = {"cuDNN": functools.partial(library, cudnn)}
  if importlib.util.find_spec("tokamax") is not None:
    tokamax = importlib.import_module("tokamax")
    attend = functools.partial(
      tokamax.dot_product_attention,
      is_causal=True,
      local_window_size=near,
      implementation="mosaic",
    )
    found["tokamax"] = functools.partial(library, attend)
  return found


def attention(
  T: int, H: int, part: str, window: int | None = None, packed: int = 1
) -> Line:
  """Causal attention of 64 heads over 8 in bf16, 16k tokens in all.

  Of `packed` documents a row the peers know by a dense mask: none of their
  calls has segments.
  """
  B, K, G = max(1, 16_384 // T), 8, 8
  xs = operands(B, T, K, G, H, jnp.bfloat16)
  ids_BT = jnp.repeat(jnp.arange(1, packed + 1), T // packed)[None]
  ids_BT = jnp.broadcast_to(ids_BT, (B, T))
  segments = {"q_segments_BT": ids_BT, "kv_segments_BS": ids_BT}
  ours = functools.partial(
    kernels.flash_attention,
    window=window,
    impl="hopper",
    **(segments if packed > 1 else {}),
  )
  others = peers(window)
  if packed > 1:
    mask = (ids_BT[:, None, :, None] == ids_BT[:, None, None, :])[:, :1]
    others = {
      name: functools.partial(library, functools.partial(f.args[0], mask=mask))
      for name, f in others.items()
    }
  calls = {"ours": timed(ours, xs, part)}
  calls |= {name: timed(f, xs, part) for name, f in others.items()}
  span = T // packed
  pairs = packed * span * (span + 1) / 2
  if window is not None and window < span:
    pairs -= packed * (span - window) * (span - window + 1) / 2
  back = part == "backward"
  size = sum(x.nbytes for x in xs[:3]) * (2 if back else 1) + xs[3].nbytes
  kind = f"window {window}" if window else "packed" if packed > 1 else "causal"
  flops = 2 * PRODUCTS[part] * B * K * G * H * pairs
  return Line(f"{part}, {kind}, T={T}, H={H}", calls, flops, size)


def decoding(B: int, S: int, H: int) -> Line:
  """One token for B rows against S keys of 8 heads, 64 query heads."""
  q, k, v, _ = operands(B, S, 8, 8, H, jnp.bfloat16)
  q, lengths = q[:, 0], jnp.full(B, S, jnp.int32)
  decode = jax.jit(functools.partial(kernels.decode_attention, impl="hopper"))
  peer = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
  cudnn = jax.jit(lambda q, k, v: library(peer, q[:, None], k, v))
  calls = {
    "ours": lambda: decode(q, k, v, lengths),
    "cuDNN": lambda: cudnn(q, k, v),
  }
  size = k.nbytes + v.nbytes + 2 * q.nbytes
  name = f"decode, {(k.nbytes + v.nbytes) >> 20} MB of KV, S={S}, H={H}"
  return Line(name, calls, 4 * q.size * S, size)


def hopper() -> list[Callable[[], Line]]:
  """Returns the GPU's lines, each made when it is its turn."""
  lines = []
  for part in ("forward", "backward"):
    for H in (64, 128, 256):
      for T in (4096, 16_384):
        lines.append(functools.partial(attention, T, H, part))
    lines.append(functools.partial(attention, 8192, 128, part, packed=8))
    lines.append(functools.partial(attention, 8192, 128, part, window=1024))
  for B, S in ((16, 8192), (1, 131_072)):
    lines.append(functools.partial(decoding, B, S, 128))
  return lines


def quickstart(documents: int) -> Line:
  """The demo's attention, forward and backward: 6 rows of 192 tokens.

  Rows hold so many documents, for which the peer is given a mask made ahead.
  """
  B, T, K, G, H = 6, 192, 2, 2, 32
  xs = operands(B, T, K, G, H, jnp.float32)
  ids_BT = jnp.repeat(jnp.arange(1, documents + 1), T // documents)[None]
  ids_BT = jnp.broadcast_to(ids_BT, (B, T))
  packed = documents > 1
  segments = {"q_segments_BT": ids_BT, "kv_segments_BS": ids_BT}
  mask = (ids_BT[:, None, :, None] == ids_BT[:, None, None, :])[:, :1]
  peer = functools.partial(
    jax.nn.dot_product_attention, is_causal=True, mask=mask if packed else None
  )
  ours = functools.partial(
    kernels.flash_attention, impl="xla", **(segments if packed else {})
  )
  calls = {
    "ours": timed(ours, xs, "both"),
    "jax.nn": timed(functools.partial(library, peer), xs, "both"),
  }
  span = T // documents
  pairs = documents * span * (span + 1) / 2
  flops = 2 * PRODUCTS["both"] * B * K * G * H * pairs
  size = 2 * sum(x.nbytes for x in xs)
  kind = f"{documents} documents a row" if packed else "causal"
  name = f"forward + backward, {kind}, {B} x {T} tokens, {K * G} heads of {H}"
  return Line(name, calls, flops, size)


def cache() -> Line:
  """The demo's decoding: a token for 512 rows over their cache of 192."""
  B, S, K, G, H = 512, 192, 2, 2, 32
  q, k, v, _ = operands(B, S, K, G, H, jnp.float32)
  q, lengths = q[:, :1], jax.random.randint(jax.random.key(9), (B,), 60, 190)
  decode = jax.jit(functools.partial(kernels.decode_attention, impl="xla"))
  attend = jax.jit(functools.partial(kernels.flash_attention, impl="xla"))
  calls = {
    "ours": lambda: decode(q[:, 0], k, v, lengths),
    "flash_attention, one query": lambda: attend(q, k, v, q_offset=lengths - 1),
  }
  seen = float(lengths.mean())
  size = (k.nbytes + v.nbytes) * seen / S + 2 * q.nbytes
  name = f"decode, {B} rows of {seen:.0f} tokens, {K * G} heads of {H}"
  return Line(name, calls, 4 * q.size * seen, size)


def vocabulary() -> Line:
  """Log-probabilities and entropy of 2048 tokens over 8192, with gradients."""
  B, T, D, V = 4, 512, 256, 8192
  keys = jax.random.split(jax.random.key(0), 3)
  hidden_BTD = jax.random.normal(keys[0], (B, T, D))
  unembed_VD = jax.random.normal(keys[1], (V, D)) * D**-0.5
  targets_BT = jax.random.randint(keys[2], (B, T), 0, V)

  def dense(hidden_BTD, unembed_VD, targets_BT):
    logits = jnp.einsum("BTD,VD->BTV", hidden_BTD, unembed_VD)
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, targets_BT[..., None], -1)[..., 0]
    return picked, -(jnp.exp(logp) * logp).sum(-1)

  def gradients(f):
    total = lambda *xs: sum(x.sum() for x in f(*xs))
    grad = jax.jit(jax.grad(total, (0, 1)))
    return lambda: grad(hidden_BTD, unembed_VD, targets_BT)

  calls = {
    "ours": gradients(kernels.token_logprobs),
    "dense": gradients(dense),
  }
  flops = 2 * 3 * B * T * D * V
  size = 2 * (hidden_BTD.nbytes + unembed_VD.nbytes)
  name = f"token_logprobs + gradients, {B * T} tokens, D={D}, V={V}"
  return Line(name, calls, flops, size)


def laptop() -> list[Callable[[], Line]]:
  """Returns the CPU's lines."""
  demo = [functools.partial(quickstart, n) for n in (1, 4)]
  return [*demo, cache, vocabulary]


def row(line: Line, flops: float, bandwidth: float) -> str:
  """Times a line; returns its row of the table."""
  spent = medians(line.calls)
  floor = max(line.flops / flops, line.bytes / bandwidth)
  ours = spent.pop("ours")
  best = min(spent, key=spent.__getitem__)
  others = ", ".join(f"{name} {1e3 * s:.3f}" for name, s in spent.items())
  cells = (
    line.name,
    f"{1e3 * ours:.3f}",
    others,
    f"{spent[best] / ours:.2f} of {best}",
    f"{line.flops / 1e9:.3g}",
    f"{line.bytes / 1e6:.3g}",
    f"{1e3 * floor:.3f}",
    f"{line.flops / ours / flops:.0%}",
    f"{line.bytes / ours / bandwidth:.0%}",
  )
  return "| " + " | ".join(cells) + " |"


def main(argv: list[str]) -> None:
  """Prints the table a row at a time, and writes it."""
  del argv
  device = jax.devices()[0]
  gpu = device.platform == "gpu"
  lines = hopper() if gpu else laptop()
  size = (8192, jnp.bfloat16, 1 << 32) if gpu else (2048, jnp.float32, 1 << 28)
  flops, bandwidth = ceilings(*size)
  unmeasured = (
    "No accelerator here: the kernels for TPU and Hopper are compiled for their"
    " chips (kernels/README.md), and their speed is unmeasured.\n"
  )
  heads = ("what", "ours, ms", "peers, ms", "speed", "GFLOP", "MB")
  heads += ("floor, ms", "of matmul", "of copy")
  text = [
    f"{device.device_kind}, jax {jax.__version__}: {flops / 1e12:.3g} TFLOP/s"
    f" {size[1].__name__} matmul, {bandwidth / 1e9:.4g} GB/s copy; medians of"
    f" {ROUNDS} interleaved rounds.\n",
    *([] if gpu else [unmeasured]),
    "| " + " | ".join(heads) + " |",
    "|" + " --- |" * len(heads),
  ]
  print("\n".join(text))
  for make in lines:
    text.append(row(make(), flops, bandwidth))
    print(text[-1], flush=True)
  _table.keep(text)


if __name__ == "__main__":
  app.run(main)
