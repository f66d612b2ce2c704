"""One GRPO step of Pith, of TRL and of Tunix: how long it takes, and its loss.

python -m experiments.bench.peers [--rounds=9] [--out=FILE.md]

A Qwen2 of random weights is written as transformers has it, and rollouts of it;
each program loads both in a process of its own (TRL in .venv-torch, Tunix in
.venv-tunix: `make oracle peers`) and takes the same steps, in turn, round after
round. A step is loss, gradient, clip and AdamW in fp32, and in one line of the
table the sampling before it. The floor is the matmul FLOPs of the tokens that
are there (6 a parameter and token, the unembedding only behind answers, and
causal attention's) at the rate of a large square matmul in the same run. A
program that is not installed is left out, and said so.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.bench import _table
from experiments.bench import step as bench
from experiments.bench._peers import terms
from research.data import hf_tokenizer, text
from research.models import huggingface, transformer
from research.models.config import Model, Rope
from research.training import objectives
from research.types import Batch

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Steps that are timed, of each.")

WORKERS = pathlib.Path(__file__).parent / "_peers"
ROOT = pathlib.Path(__file__).parents[2]
PEERS = {
  "Pith": ("pith_worker.py", pathlib.Path(sys.executable)),
  "TRL": ("trl_worker.py", ROOT / ".venv-torch" / "bin" / "python"),
  "Tunix": ("tunix_worker.py", ROOT / ".venv-tunix" / "bin" / "python"),
}
WARM = 4  # steps that are not timed: Tunix compiles more than once
MODEL = Model(
  vocab=512,
  width=256,
  layers=4,
  kv_heads=2,
  groups=4,
  head_dim=32,
  mlp=768,
  context=256,
  rope=Rope(base=1_000_000.0),
  qkv_bias=True,
)
ANSWERS = terms.PROMPTS * terms.GROUP
STEPS = {  # and the shortest answer
  "full": ("update, all answers {new} tokens", terms.NEW),
  "ragged": ("update, answers of {short} to {new} tokens", terms.NEW // 4),
  terms.WHOLE: ("sampling of {new} tokens each, then update", terms.NEW),
}
AGREE = 1e-5  # how far first losses may differ, relative


class Timed(NamedTuple):
  """What a program's steps told, first to last, and what it is made of."""

  versions: str
  told: list[dict[str, float]]

  @property
  def seconds(self) -> np.ndarray:
    """Seconds of each warm step."""
    return np.array([step["seconds"] for step in self.told[WARM:]])

  def of(self, what: str) -> float:
    """The median of what warm steps told."""
    return float(np.median([step[what] for step in self.told[WARM:]]))

  @property
  def compiling(self) -> float:
    """Seconds that the first steps took beyond as many warm ones."""
    spent = sum(step["seconds"] for step in self.told[:WARM])
    return float(max(0.0, spent - WARM * self.of("seconds")))


def lengths(shortest: int, seed: int = 0) -> np.ndarray:
  """Returns how long the answers are: the longest always among them."""
  drawn = np.random.default_rng(seed).integers(shortest, terms.NEW + 1, ANSWERS)
  drawn[0] = terms.NEW
  return drawn


def own_logprobs(params: Any, tokens: np.ndarray) -> np.ndarray:
  """Returns what the model says of the answers in rows of prompt and answer."""
  tokens_BT = jnp.asarray(tokens)
  ones_BT = jnp.ones_like(tokens_BT)
  rows = Batch(tokens_BT, ones_BT, jnp.cumsum(ones_BT, axis=1) - 1, ones_BT)
  say = jax.jit(lambda params: objectives.score(MODEL, params, rows))
  return np.asarray(say(params).logprobs_BT)[:, terms.PROMPT - 1 : -1]


def drawn(params: Any, lengths_B: np.ndarray) -> dict[str, np.ndarray]:
  """Returns a rollout of random bytes, by a policy that was a little different.

  Its log-probabilities are the model's own and noise, so that some ratios are
  beyond the clip; advantages are those of random rewards in groups.
  """
  rng = np.random.default_rng(1)
  prompts = rng.integers(97, 123, (terms.PROMPTS, terms.PROMPT))
  prompts = np.repeat(prompts, terms.GROUP, axis=0).astype(np.int32)
  live = np.arange(terms.NEW) < lengths_B[:, None]
  answers = np.where(live, rng.integers(0, 256, live.shape), terms.PAD)
  answers = answers.astype(np.int32)
  own = own_logprobs(params, np.concatenate([prompts, answers], axis=1))
  old = live * (own + rng.normal(0, 0.2, live.shape))
  rewards = rng.random((terms.PROMPTS, terms.GROUP))
  centred = rewards - rewards.mean(1, keepdims=True)
  advantages = (centred / rewards.std(1, keepdims=True)).reshape(-1)
  return {
    "prompts": prompts,
    "answers": answers,
    "mask": live.astype(np.float32),
    "advantages": advantages.astype(np.float32),
    "old": old.astype(np.float32),
  }


def synthesise(folder: pathlib.Path) -> pathlib.Path:
  """Writes checkpoint, tokenizer and rollouts side by side; returns where."""
  beside = folder / "tokenizer"
  beside.mkdir()
  tokens = text.ByteTokenizer().tokens()
  hf_tokenizer.write_bytes(beside, tokens, end=terms.STOP, pad=terms.PAD)
  params = transformer.init(MODEL, jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [  # biases too are then something that a loader can lose
    x + 0.02 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  ]
  params = jax.tree.unflatten(tree, noisy)
  made = folder / "checkpoint"
  huggingface.save(made, MODEL, params, source=beside)
  for name in ("full", "ragged"):
    rollout: Any = drawn(params, lengths(STEPS[name][1]))
    np.savez(made / f"{name}.npz", **rollout)
  return made


def work(lengths_B: np.ndarray, *, sampled: bool = False) -> float:
  """Returns the matmul FLOPs of a step on answers so long, sampled or given.

  A token and weight cost 2 forward and 4 backward; the embedding is no matmul.
  """
  unembed = MODEL.vocab * MODEL.width
  body = transformer.count(MODEL) - unembed
  heads = MODEL.kv_heads * MODEL.groups * MODEL.head_dim
  tokens_B = terms.PROMPT + lengths_B
  pairs = float((tokens_B**2).sum())  # half of them, 2 products of 2 each
  once = 2 * (body * tokens_B.sum() + unembed * lengths_B.sum())
  once += 2 * MODEL.layers * heads * pairs
  return once * (4 if sampled else 3)


def environment() -> dict[str, str]:
  """Returns what a process gets: a CPU, and no settings of the caller's jax."""
  ours = ("XLA_FLAGS", "JAX_")
  kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
  offline = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
  return kept | offline | {"JAX_PLATFORMS": "cpu"}


@contextlib.contextmanager
def running(name: str, folder: pathlib.Path, rollout: str) -> Iterator[Any]:
  """A program's process, which is over when the block is."""
  script, python = PEERS[name]
  with subprocess.Popen(
    [python, WORKERS / script, folder, rollout],
    env=environment(),
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=(folder / f"{name}.log").open("a"),
    text=True,
  ) as process:
    assert process.stdin is not None
    try:
      yield process
    finally:
      process.stdin.close()


def heard(name: str, process: Any, folder: pathlib.Path) -> Any:
  """Returns what a process says next.

  Raises:
    RuntimeError: it broke off; with the end of what it told last.
  """
  line = process.stdout.readline()
  if not line:
    last = (folder / f"{name}.log").read_text()[-2000:]
    raise RuntimeError(f"{name} broke off:\n{last}")
  return json.loads(line)


def timed(folder: pathlib.Path, rollout: str, rounds: int) -> dict[str, Timed]:
  """Returns what the programs that are there told of their steps, in turn."""
  with contextlib.ExitStack() as stack:
    there = {
      name: stack.enter_context(running(name, folder, rollout))
      for name, (_, python) in PEERS.items()
      if python.exists()
    }
    found = {
      name: Timed(heard(name, process, folder), [])
      for name, process in there.items()
    }
    for _ in range(WARM + rounds):
      for name, process in there.items():
        time.sleep(0.05)  # the threads of the one before go to sleep
        process.stdin.write("\n")
        process.stdin.flush()
        found[name].told.append(heard(name, process, folder))
  return found


def apart(found: dict[str, Timed], step: int = 0) -> float:
  """Returns how far the losses of a step are from Pith's, relative."""
  losses = [one.told[step]["loss"] for one in found.values()]
  ours = found["Pith"].told[step]["loss"]
  return max(abs(loss - ours) for loss in losses) / abs(ours)


def lines(rollout: str, found: dict[str, Timed], floor: float) -> list[str]:
  """Returns the table's lines of one kind of step."""
  title, shortest = STEPS[rollout]
  title = title.format(short=shortest, new=terms.NEW)
  ours = found["Pith"].of("seconds")
  out = []
  for name, one in found.items():
    median, spent = one.of("seconds"), 1e3 * one.seconds
    cells = [title, name, f"{1e3 * median:.0f}"]
    cells += [f"{spent.min():.0f} to {spent.max():.0f}"]
    cells += [f"{1e3 * one.of('cpu'):.0f}"]
    cells += [f"{median / ours:.2f}", f"{1e3 * floor:.0f}"]
    cells += [f"{floor / median:.0%}", f"{one.compiling:.1f}"]
    given = rollout != terms.WHOLE
    cells += [f"{one.told[i]['loss']:.8f}" if given else "" for i in (0, -1)]
    out.append(f"| {' | '.join(cells)} |")
  return out


def main(argv: list[str]) -> None:
  """Prints the table, and writes it where it was asked to."""
  del argv
  flops, _ = bench.rates()
  head = ("step", "program", "ms", "spread", "of all threads, ms")
  head += ("of Pith's", "floor, ms", "of it")
  head += ("compiling, s", "loss of the first step", "of the last")
  table = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
  versions, differ = {}, {}
  with tempfile.TemporaryDirectory() as temporary:
    folder = synthesise(pathlib.Path(temporary))
    for rollout, (_, shortest) in STEPS.items():
      sampled = rollout == terms.WHOLE
      floor = work(lengths(shortest), sampled=sampled) / flops
      found = timed(folder, rollout, _ROUNDS.value)
      table += lines(rollout, found, floor)
      versions = {name: one.versions for name, one in found.items()}
      if not sampled:
        differ[rollout] = apart(found), apart(found, -1)
      print("\n".join(table[-len(found) :]), flush=True)
  told = about(flops, versions, differ)
  print("\n".join(told))
  _table.keep([*told, *table])
  if any(first > AGREE for first, _ in differ.values()):
    sys.exit(f"error: first losses differ by more than {AGREE}")


def about(
  flops: float,
  versions: dict[str, str],
  differ: dict[str, tuple[float, float]],
) -> list[str]:
  """Returns what stands above the table."""
  made = "; ".join(f"{name}: {made}" for name, made in versions.items())
  absent = [name for name in PEERS if name not in versions]
  losses = "; ".join(
    f"{name}: {first:.1e} on the first step, {last:.1e} on the last"
    for name, (first, last) in differ.items()
  )
  return [
    f"A Qwen2 of {transformer.count(MODEL) / 1e6:.2f} M, fp32, "
    f"{terms.GROUP} answers to each of {terms.PROMPTS} prompts of "
    f"{terms.PROMPT} tokens; {flops / 1e9:.0f} GFLOP/s matmul; medians of "
    f"{_ROUNDS.value} steps in turn. {made}."
    + (f" Not installed: {', '.join(absent)}." if absent else ""),
    "",
    f"Losses apart, relative: {losses}.",
    "",
  ]


if __name__ == "__main__":
  app.run(main)
