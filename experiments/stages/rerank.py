"""A reranker learns to order passages by the question as by the rationale."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from jax.sharding import Mesh

from experiments import loop, pools, retrieval, settings, student
from experiments.retrieval import Asked
from experiments.settings import Plugin, Run, Stage
from experiments.stages import ground
from research import sharding
from research.data import packing, text
from research.knowledge import rerank, retrieve
from research.knowledge.bm25 import Index
from research.knowledge.rerank import Rows
from research.models.config import Lora
from research.training import optimizers
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Config:
  """A step is `rows` questions of `corpus`, each with `candidates` of `source`.

  They take `length` tokens together at most. `tau1` and `tau2` are the
  temperatures of BM25 and of the reranker; `start` names a stage to begin from.
  """

  run: Run
  corpus: str
  source: Plugin
  candidates: int
  rows: int
  length: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  tau1: float = 1.0
  tau2: float = 1.0
  microbatches: int = 1
  start: Stage | None = None
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on an order of nothing and on adapters over nothing."""
    if self.candidates < 2 or min(self.tau1, self.tau2) <= 0:
      raise ValueError(
        "rerank: at least 2 candidates and temperatures above 0 are wanted"
      )
    if self.rows < 1 or self.rows % self.microbatches:
      raise ValueError(
        f"rerank: {self.rows} rows cannot be cut into {self.microbatches} "
        "microbatches"
      )
    student.check(self)


def _draw(
  config: Config,
  tokenizer: text.Tokenizer,
  index: Index,
  corpus: Sequence[Asked],
  mesh: Mesh,
  state: TrainState,
  step: int,
) -> tuple[Rows, dict]:
  """Returns the questions of a step, and how full their rows are."""
  del state
  asked = pools.of_step(list(corpus), config.run.seed, step, config.rows)
  chosen = [
    retrieve.candidates(index, a.question, a.rationale, config.candidates)
    for a in asked
  ]
  questions = [
    rerank.examples(
      tokenizer, a.question, [index.passages[place] for place in places]
    )
    for a, (places, _) in zip(asked, chosen, strict=True)
  ]
  rows = rerank.lay_out(
    questions,
    [scores.tolist() for _, scores in chosen],
    length=config.length,
    candidates=config.candidates,
    pad=tokenizer.pad,
  )
  real = sum(packing.size_of(e) for row in questions for e in row)
  fill = (float(real), float(config.rows * config.length))
  return sharding.place(rows, mesh), {"fill": fill}


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the reranker; returns how many questions it was shown."""
  tokenizer = settings.load_tokenizer(config.run)
  mesh = student.make_mesh(config)
  objective = rerank.imitation(
    student.decoder(config),
    rerank.answers(tokenizer),
    mesh,
    tau1=config.tau1,
    tau2=config.tau2,
  )
  index = retrieval.index_of(config.source)
  corpus = ground.read(config.corpus, inputs)
  draw = functools.partial(_draw, config, tokenizer, index, corpus, mesh)
  student.train(config, inputs, workdir, objective, draw)
  shown = config.loop.steps * config.rows
  return {"shown": shown, **student.adapters(config)}
