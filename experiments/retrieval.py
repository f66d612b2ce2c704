"""Passages for a stage: which are put before a prompt, and who chooses them."""

import dataclasses
import functools
import json
import random
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from experiments import settings, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Stage
from research.knowledge import bm25, rerank, retrieve
from research.knowledge.bm25 import Index


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """`count` passages a question, of those that the function `source` returns.

  They are found `by` BM25 with the question; by `feedback`, the question and
  what it finds first; by a `reranker`, the stage of that name, among `pool` of
  these; by the rationale, to learn from and as what cannot be bettered; or at
  random among those that do not hold the answer, as a control.
  """

  source: Plugin
  by: Literal["question", "feedback", "reranker", "rationale", "random"]
  count: int
  pool: int = 32
  reranker: Stage | None = None

  def __post_init__(self):
    """Raises ValueError on passages that nobody could choose."""
    if not 1 <= self.count <= self.pool:
      raise ValueError(f"{self}: 1 <= count <= pool is wanted")
    if (self.by == "reranker") != (self.reranker is not None):
      raise ValueError(
        f"{self}: by is 'reranker' where a reranker's stage is named, and only "
        "there"
      )


@dataclasses.dataclass(frozen=True)
class Asked:
  """A question, and what a retrieval may be told of its solution."""

  key: str
  question: str
  rationale: str
  answer: str


def index_of(source: Plugin) -> Index:
  """Returns the index over a source's passages; the last one is kept."""
  return _index(source.name, json.dumps(source.args))


@functools.lru_cache(maxsize=1)
def _index(name: str, args: str) -> Index:
  return bm25.index(resolve(name)(**json.loads(args)))


def find(
  config: Any,
  retrieval: Retrieval,
  inputs: dict[str, Any],
  asked: Sequence[Asked],
) -> list[list[str]]:
  """Returns each question's passages, the likeliest first.

  Raises:
    ValueError: a control's passage holds the answer.
  """
  index, count = index_of(retrieval.source), retrieval.count
  match retrieval.by:
    case "question":
      places = [retrieve.by_text(index, a.question, count) for a in asked]
    case "feedback":
      places = [retrieve.by_feedback(index, a.question, count) for a in asked]
    case "rationale":
      places = [retrieve.by_text(index, a.rationale, count) for a in asked]
    case "random":
      rng = lambda a: random.Random(f"{config.run.seed}/{a.key}")
      places = [
        retrieve.at_random(index, rng(a), a.answer, count) for a in asked
      ]
    case "reranker":
      places = _reranked(config, retrieval, inputs, index, asked)
  found = [[index.passages[place] for place in row] for row in places]
  if retrieval.by == "random":
    for a, passages in zip(asked, found, strict=True):
      if retrieve.holds(passages, a.answer):
        raise ValueError(
          f"the random passages of {a.key!r} hold its answer {a.answer!r}: "
          "they are no control"
        )
  return found


def _reranked(
  config: Any,
  retrieval: Retrieval,
  inputs: dict[str, Any],
  index: Index,
  asked: Sequence[Asked],
) -> list[list[int]]:
  """Returns the best of each question's pool by the reranker."""
  drawn = [
    retrieve.by_feedback(index, a.question, retrieval.pool) for a in asked
  ]
  mesh = student.make_mesh(config)
  judged = rerank.judge(
    config.run.model,
    student.load(config, inputs, str(retrieval.reranker), mesh),
    settings.load_tokenizer(config.run),
    [
      (a.question, [index.passages[place] for place in pool])
      for a, pool in zip(asked, drawn, strict=True)
    ],
    mesh=mesh,
  )
  return [
    [pool[i] for i in np.argsort(-scores, kind="stable")[: retrieval.count]]
    for pool, scores in zip(drawn, judged, strict=True)
  ]


def recalls(
  retrieval: Retrieval, asked: Sequence[Asked], found: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Returns by key how many of a rationale's passages were found, from 0 to 1.

  A rationale that quotes no passage has no figure.
  """
  index = index_of(retrieval.source)
  needed = [retrieve.needed(index, a.rationale) for a in asked]
  return {
    a.key: retrieve.recall(passages, wanted)
    for a, passages, wanted in zip(asked, found, needed, strict=True)
    if wanted
  }
