"""Every pair that is near by an exact count is found, and no other."""

import random

import numpy as np
import pytest

from research.annotation import near_duplicates as near
from tests.research.annotation.making import about, reasons, texts, trace

WORDS = [f"w{i}" for i in range(500)]


def altered(text, share, rng):
  """The text with some of its words replaced."""
  said = [
    rng.choice(WORDS) if rng.random() < share else w for w in text.split()
  ]
  return " ".join(said)


def corpus(seed):
  """Families of texts, from copies to strangers, in any order."""
  rng = random.Random(seed)
  found = []
  for _ in range(25):
    first = " ".join(rng.choices(WORDS, k=80))
    found += [altered(first, s, rng) for s in (0, 0.002, 0.01, 0.03, 0.1)]
  rng.shuffle(found)
  return [trace(text, sample=i) for i, text in enumerate(found)]


def exact(traces, similarity):
  """What stays when every trace is compared with all that stayed, in words."""
  kept = []
  for t in traces:
    a = set(near._grams(t))
    sets = [(a, set(near._grams(k))) for k in kept]
    if all(len(a & b) / len(a | b) < similarity for a, b in sets):
      kept.append(t)
  return kept


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("similarity", [0.7, 0.8, 1.0])
def test_as_by_comparing_all_pairs(seed, similarity):
  traces = corpus(seed)
  found = near.sift(traces, about(seed=seed), similarity=similarity)
  assert found.kept == exact(traces, similarity)
  assert 25 < len(found.kept) < len(traces)
  assert all(r.detail for _, r in found.dropped)


def test_candidates_come_as_often_as_the_theory_says():
  """A hash that prefers some words would make another curve."""
  rng, met, pairs = random.Random(0), 0, 2000
  salts = near._salts(0)
  common, own = 40, 30  # 40 of 100 alike: s = 0.4
  for n in range(pairs):
    names = [f"{n} {rng.random()}" for _ in range(common + 2 * own)]
    a, b = names[: common + own], names[:common] + names[common + own :]
    sides = [near._bands(near._digests(x), salts) for x in (a, b)]
    met += any(x == y for x, y in zip(*sides, strict=True))
  expected = 1 - (1 - 0.4**near.ROWS) ** near.BANDS
  assert abs(met / pairs - expected) < 0.05, (met / pairs, expected)


def test_sets():
  a, b = near._digests("abcc"), near._digests("dcb")
  assert a.size == b.size == 3 and near.jaccard(a, b) == 0.5
  assert np.unique(near._salts(1)).size == near.BANDS * near.ROWS


def test_layout_does_not_count_and_the_problem_does():
  told = "Two and two, they say, are four in all the lands."
  traces = [
    trace(told, prompt="how many are two and two"),
    trace(told.upper() + "\n\n", prompt="How many are two and two?", sample=1),
    trace(told, prompt="a question of another sort with other words in it"),
    trace("#### 4", prompt="1a+3"),
    trace("#### 4", prompt="2a+2"),
    trace("+ +", prompt="2a+2"),
    trace("- -", prompt="2a+2"),
  ]
  found = near.sift(traces, about())
  assert reasons(found) == ["near duplicate"]
  assert found.dropped[0][0] is traces[1]
  assert "'how many are two and two', sample 0" in found.dropped[0][1].detail
  assert len(texts(found)) == 6
