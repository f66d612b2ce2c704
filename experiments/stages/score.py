"""What held-out text costs students, in nats a token."""

import dataclasses
import functools
import pathlib
import re
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

  Conversations, and pieces of documents, are packed, `rows` rows of `length`
  tokens at once; longer conversations are left out. Names of the summary begin
  with `prefix`, "" or "name/". `pairs` are (left, right) to subtract.
  """

  run: Run
  students: tuple[Stage, ...]
  corpus: str
  rows: int
  length: int
  prefix: str = ""
  pairs: tuple[tuple[Stage, ...], ...] = ()

  def __post_init__(self):
    """Raises ValueError on rows that cannot be and on pairs of others."""
    if min(self.rows, self.length) < 1:
      raise ValueError(f"{self}: rows and length must be at least 1")
    if not re.fullmatch(r"([\w.-]+/)?", self.prefix):
      raise ValueError(f"the prefix {self.prefix!r} is no name and a slash")
    if self.length > self.run.model.context:
      raise ValueError(
        f"score: rows of {self.length} tokens are longer than the model's "
        f"context of {self.run.model.context}: lower length or raise "
        "config.model.context"
      )
    for pair in self.pairs:
      if len(pair) != 2 or not set(pair) <= set(self.students):
        raise ValueError(f"the pair {pair} is not two of {self.students}")


def _batches(
  config: Config, inputs: dict[str, Any]
) -> tuple[list[tuple[list[int], Batch]], int]:
  """Returns batches, each with the numbers of the conversations in its rows,
  and how many conversations were too long.
  """
  tokenizer = settings.load_tokenizer(config.run)
  records = jsonl.read(located(config.corpus, inputs))
  pieces = text.cut(tokenizer, records, config.length)
  examples = [text.example(tokenizer, record) for record in pieces]
  fitting = [e for e in examples if packing.size_of(e) <= config.length]
  if not fitting:
    raise ValueError(
      f"{config.corpus}: none of {len(examples)} conversations fits "
      f"{config.length} tokens: raise length"
    )
  number = {id(example): i for i, example in enumerate(fitting)}
  packed, found = packing.pack(fitting, config.length).rows, []
  for start in range(0, len(packed), config.rows):
    rows = packed[start : start + config.rows]
    rows += [[] for _ in range(config.rows - len(rows))]
    batch = packing.to_batch(rows, config.length, pad=tokenizer.pad)
    found.append(([number[id(e)] for row in rows for e in row], batch))
  return found, len(examples) - len(fitting)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _nats(model: Model, mesh: Mesh, params: Any, batch: Batch) -> jax.Array:
  """Returns nats_BT of the next token, 0 where the assistant wrote none."""
  said = objectives.speak(model, params, batch, mesh)
  logprobs_BT, _ = kernels.token_logprobs(
    said.hidden_BTE,
    said.unembed_VE,
    segments.next_tokens(batch.tokens_BT),
    softcap=said.softcap,
  )
  return -logprobs_BT * batch.weights_BT


def _each(batch: Batch, nats_BT: np.ndarray) -> list[float]:
  """Returns the nats a token of each segment, row by row."""
  of_row = zip(batch.segments_BT, nats_BT, batch.weights_BT, strict=True)
  summed = lambda ids_T, x_T: np.bincount(ids_T, x_T)[1:]  # 0 is padding
  means = [summed(i, x) / summed(i, w) for i, x, w in of_row]
  return np.concatenate(means).tolist()


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
    cells: dict[int, float] = {}
    for numbers, batch in batches:
      said = _nats(model, mesh, params, sharding.place(batch, mesh))
      cells |= zip(numbers, _each(batch, np.asarray(said)), strict=True)
    nats[name] = {str(i): cells[i] for i in sorted(cells)}
  seed = config.run.seed
  found = {
    f"{config.prefix}{n}/nats": intervals.bootstrap(x, seed=seed)
    for n, x in nats.items()
  }
  for left, right in config.pairs:
    difference = intervals.paired(nats[left], nats[right], seed=seed)
    found[f"{config.prefix}{left}_minus_{right}/nats"] = difference
  scored = sum(len(numbers) for numbers, _ in batches)
  return {"scored": scored, "left_out": left_out, "summary": found}
