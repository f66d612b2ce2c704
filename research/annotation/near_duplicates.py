"""Of texts that say nearly the same, the first stays.

MinHash (Broder 1997) finds candidates: the share of equal minima under random
hash functions estimates the Jaccard similarity of two sets. Every candidate is
then compared whole, so that chance can only overlook a pair. Sets are of 64-bit
digests, which are as good as the words: two alike are one in 10^19.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from research.annotation import gates, words
from research.annotation.gates import About, Reason, Sifted
from research.types import Trace

# Two sets with similarity s meet in a band with 1 - (1 - s**ROWS)**BANDS: over
# 0.9999 at s = 0.7, 0.04 at s = 0.2.
BANDS, ROWS, WORDS = 32, 4, 5


def sift(
  traces: Sequence[Trace], about: About, *, similarity: float = 0.8
) -> Sifted:
  """Drops a trace that is as similar as that to an earlier one, prompt and all.

  Similarity is Jaccard's over the 5-grams of words of prompts and of texts.
  Below 0.7 more than one pair of a thousand is overlooked.
  """
  kept: list[np.ndarray] = []
  names: list[str] = []
  buckets: dict[tuple[int, bytes], list[int]] = {}
  salts = _salts(about.seed)

  def judge(trace: Trace) -> Reason | None:
    grams = _digests(_grams(trace))
    bands = list(enumerate(_bands(grams, salts)))
    near = sorted({i for band in bands for i in buckets.get(band, ())})
    for i in near:
      common = jaccard(grams, kept[i])
      if common >= similarity:
        return Reason("near duplicate", f"{common:.2f} like {names[i]}")
    for band in bands:
      buckets.setdefault(band, []).append(len(kept))
    kept.append(grams)
    names.append(f"{trace.problem.meta['key']!r}, sample {trace.sample}")
    return None

  return gates.split(traces, judge)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
  """How much two sets have in common: |a & b| / |a | b|."""
  common = np.intersect1d(a, b, assume_unique=True).size
  return common / (a.size + b.size - common)


def _grams(trace: Trace) -> Iterator[str]:
  """The 5-grams of the prompt's and of the text's words, told apart."""
  for side, text in (">", trace.problem.prompt), ("<", trace.text or ""):
    for gram in words.grams(words.words(text) or [text], WORDS):
      yield f"{side} {gram}"


def _digests(grams: Iterable[str]) -> np.ndarray:
  """The set of their digests."""
  digest = lambda gram: hashlib.blake2b(gram.encode(), digest_size=8).digest()
  return np.unique(np.frombuffer(b"".join(map(digest, grams)), np.uint64))


def _salts(seed: int) -> np.ndarray:
  """Odd factors, one a hash function."""
  rng = np.random.default_rng((seed, BANDS, ROWS))
  return rng.integers(0, 1 << 63, BANDS * ROWS, np.uint64) * 2 + 1


def _bands(grams: np.ndarray, salts: np.ndarray) -> list[bytes]:
  """The minima under each hash function, ROWS of them at a time."""
  mixed = grams[:, None] * salts[None]
  least = (mixed ^ mixed >> np.uint64(29)).min(0).reshape(BANDS, ROWS)
  return [band.tobytes() for band in least]
