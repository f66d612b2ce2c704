"""Spans that two tokenizations share."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from research.data import align


def test_a_known_pair():
  left = [b"The", b" cat", b" s", b"at"]
  right = [b"T", b"he", b" c", b"at s", b"at"]
  one, other = align.spans(left, right)
  np.testing.assert_array_equal(one, [1, 2, 2, 3])
  np.testing.assert_array_equal(other, [1, 1, 2, 2, 3])


def cut(text, places):
  edges = [0, *sorted({p for p in places if 0 < p < len(text)}), len(text)]
  return [text[a:b] for a, b in itertools.pairwise(edges)]


places = strategies.lists(strategies.integers(1, 20), max_size=8)


@hypothesis.given(strategies.binary(min_size=1, max_size=20), places, places)
def test_spans_are_the_finest_that_both_cut_out(text, one, other):
  sides = cut(text, one), cut(text, other)
  found = align.spans(*sides)
  join = lambda side, ids: {
    int(n): b"".join(p for p, i in zip(side, ids, strict=True) if i == n)
    for n in ids
  }
  whole = [join(*pair) for pair in zip(sides, found, strict=True)]
  assert whole[0] == whole[1] and sorted(whole[0]) == list(
    range(1, len(whole[0]) + 1)
  )
  ends = [set(np.cumsum([len(p) for p in side])) for side in sides]
  assert len(whole[0]) == len(ends[0] & ends[1])


def test_two_texts_are_refused():
  with pytest.raises(ValueError, match="from byte 4 on: b't' and b'r'"):
    align.spans([b"a ", b"cat"], [b"a ca", b"r"])
