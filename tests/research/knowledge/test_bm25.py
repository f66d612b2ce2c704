"""BM25 against its formula, in fp64."""

import collections
import math

import numpy as np
import pytest

from research.knowledge import bm25

PASSAGES = (
  "a cat sat on a mat",
  "The dog sat.",
  "dog, dog and cat",
  "nothing of these",
  "",
)


def formula(query, k1=1.5, b=0.75):
  """Lucene's form, in which k1 + 1 does not scale the whole."""
  parts = [bm25.words(passage) for passage in PASSAGES]
  mean = sum(map(len, parts)) / len(parts)
  found = []
  for part in parts:
    score, times = 0.0, collections.Counter(part)
    for word in bm25.words(query):
      holders = sum(word in other for other in parts)
      rarity = math.log(1 + (len(parts) - holders + 0.5) / (holders + 0.5))
      room = k1 * (1 - b + b * len(part) / mean)
      score += rarity * times[word] / (times[word] + room)
    found.append(score)
  return np.array(found)


@pytest.mark.parametrize(
  "query", ["cat", "Dog sat", "dog dog cat", "a mat?", "unheard", ""]
)
def test_scores_are_the_formula(query):
  found = bm25.scores(bm25.index(PASSAGES), query)
  np.testing.assert_allclose(found, formula(query), rtol=1e-6, atol=1e-6)


def test_the_best_come_first_and_strangers_never():
  scores = np.array([0.0, 2.0, 3.0, 2.0, 0.0, 1.0])
  assert bm25.best(scores, 9) == [2, 1, 3, 5]
  assert bm25.best(scores, 2)[0] == 2
  assert bm25.best(scores * 0, 3) == []


def test_nothing_to_index_is_an_error():
  with pytest.raises(ValueError, match="none of 2 passages holds a word"):
    bm25.index(["", "?!"])
