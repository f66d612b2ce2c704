"""MedQuAD's answers as passages of at most so many words.

As Wikipedia is cut for retrieval (Karpukhin et al. 2020, 2004.04906).
"""

import os
from collections.abc import Iterator

from research.data import datasets


def passages(
  words: int = 100,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> list[str]:
  """Returns the answers of the training split, cut and each once.

  None of them answers a held-out question: those share no page and no answer.
  `data_dir` and `cache_dir` are those of `research.data.datasets.source`.
  """
  rows = datasets.source("medquad", "train", data_dir, cache_dir)
  answers = dict.fromkeys(rows[place]["answer"] for place in range(len(rows)))
  found = (piece for answer in answers for piece in _cut(answer.split(), words))
  return list(dict.fromkeys(found))


def _cut(text: list[str], words: int) -> Iterator[str]:
  """Pieces of a text in order, the last of them shorter."""
  for start in range(0, len(text), words):
    yield " ".join(text[start : start + words])
