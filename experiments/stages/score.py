"""What held-out text costs students, in nats a token."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import kernels
from experiments import settings, student
from experiments.corpora import located
from experiments.settings import Run, Stage
from research import segments, sharding
from research.data import jsonl, packing, text
from research.evaluation import intervals
from research.models.config import Model
from research.training import objectives
from research.types import Batch


@dataclasses.dataclass(frozen=True)
class Config:
  """`corpus` is a JSONL file; `{stage}` in its path is that stage's folder.

  A conversation is one of `rows` rows of `length` tokens; longer ones are left
  out. `pairs` are (left, right) to subtract.
  """

  run: Run
  students: tuple[Stage, ...]
  corpus: str
  rows: int
  length: int
  pairs: tuple[tuple[Stage, ...], ...] = ()

  def __post_init__(self):
    """Raises ValueError on rows of nothing and on pairs of others."""
    if min(self.rows, self.length) < 1:
      raise ValueError(f"{self}: rows and length must be at least 1")
    for pair in self.pairs:
      if len(pair) != 2 or not set(pair) <= set(self.students):
        raise ValueError(f"the pair {pair} is not two of {self.students}")


def _batches(
  config: Config, inputs: dict[str, Any]
) -> tuple[list[tuple[int, Batch]], int]:
  """Returns [(conversations, batch)], the last one filled up with the first,
  and how many conversations were too long.
  """
  tokenizer = settings.load_tokenizer(config.run)
  records = jsonl.read(located(config.corpus, inputs))
  examples = [text.example(tokenizer, record) for record in records]
  fitting = [e for e in examples if packing.size_of(e) <= config.length]
  if not fitting:
    raise ValueError(
      f"{config.corpus}: none of {len(examples)} conversations fits "
      f"{config.length} tokens: raise length"
    )
  found = []
  for start in range(0, len(fitting), config.rows):
    taken = fitting[start : start + config.rows]
    spare = [fitting[0]] * (config.rows - len(taken))
    rows = [[example] for example in (*taken, *spare)]
    batch = packing.to_batch(rows, config.length, pad=tokenizer.pad)
    found.append((len(taken), batch))
  return found, len(examples) - len(fitting)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _nats(model: Model, mesh: Mesh, params: Any, batch: Batch) -> jax.Array:
  """Returns the nats a token of each row, over what the assistant wrote."""
  said = objectives.speak(model, params, batch, mesh)
  logprobs_BT, _ = kernels.token_logprobs(
    said.hidden_BTE,
    said.unembed_VE,
    segments.next_tokens(batch.tokens_BT),
    softcap=said.softcap,
  )
  weights_BT = batch.weights_BT
  return -(logprobs_BT * weights_BT).sum(1) / weights_BT.sum(1)


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Scores every student; returns student/nats, and left_minus_right/nats.

  Intervals are over conversations, each as heavy as any other.
  """
  del workdir
  model, mesh = config.run.model, student.make_mesh(config)
  batches, left_out = _batches(config, inputs)
  nats: dict[str, dict[str, float]] = {}
  for name in config.students:
    params = student.load(config, inputs, name, mesh)
    rows = [
      np.asarray(_nats(model, mesh, params, sharding.place(batch, mesh)))[:n]
      for n, batch in batches
    ]
    cells = enumerate(np.concatenate(rows).tolist())
    nats[name] = {str(i): value for i, value in cells}
  seed = config.run.seed
  found = {
    f"{n}/nats": intervals.bootstrap(x, seed=seed) for n, x in nats.items()
  }
  for left, right in config.pairs:
    difference = intervals.paired(nats[left], nats[right], seed=seed)
    found[f"{left}_minus_{right}/nats"] = difference
  scored = sum(n for n, _ in batches)
  return {"scored": scored, "left_out": left_out, "summary": found}
