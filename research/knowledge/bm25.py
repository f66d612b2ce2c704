"""BM25 over passages (Robertson & Zaragoza 2009), Lucene's, through bm25s."""

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True)
class Index:
  """Passages, and the weight of each word in each of them."""

  passages: tuple[str, ...]
  known: frozenset[str]
  weights: Any  # bm25s.BM25


def words(text: str) -> list[str]:
  """Returns the words of a text in lower case; a word may come twice."""
  return _WORD.findall(text.lower())


def index(passages: Sequence[str]) -> Index:
  """Returns an index over passages; ValueError where none holds a word."""
  import bm25s  # starts a device where jax is installed, so not before

  logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells each index
  parts = [words(passage) for passage in passages]
  if not any(parts):
    raise ValueError(f"none of {len(passages)} passages holds a word")
  weights = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
  weights.index(parts, show_progress=False)
  return Index(tuple(passages), frozenset(passages), weights)


def scores(index: Index, query: str) -> np.ndarray:
  """Returns the score of every passage, float32; 0 where no word is shared.

  A word counts as often as the query holds it.
  """
  known = index.weights.get_tokens_ids(words(query))
  return index.weights.get_scores_from_ids(known)


def best(scores: np.ndarray, count: int) -> list[int]:
  """Returns the places of the `count` highest scores above 0, best first."""
  top = np.flatnonzero(scores > 0)
  if len(top) > count:
    top = top[np.argpartition(-scores[top], count)[:count]]
  return top[np.lexsort((top, -scores[top]))].tolist()
