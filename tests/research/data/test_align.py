"""Spans that two tokenizations share."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from research.data import align, packing, text


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


OTHER = text.load_tokenizer("tests/golden/templates/qwen2")
OWN = text.load_tokenizer("bytes")
TALKS = [
  {"prompt": "3+4", "completion": "it is seven: 7 \u2713"},
  {
    "messages": [
      {"role": "user", "content": "and twice?"},
      {"role": "assistant", "content": "fourteen of them"},
      {"role": "user", "content": "thrice"},
      {"role": "assistant", "content": "21"},
    ]
  },
  {"prompt": "a", "completion": "b"},
]


def words(tokenizer, tokens, spans):
  """What each span says, by its number; an end of turn says b"!"."""
  told = {}
  for i, n in zip(tokens.tolist(), spans.tolist(), strict=True):
    piece = b"!" if i in tokenizer.stops else tokenizer.piece(i)
    told[n] = told.get(n, b"") + piece
  told.pop(0, None)
  return told


@pytest.mark.parametrize("talk", TALKS)
def test_both_sides_of_a_conversation_say_the_same(talk):
  own, theirs = align.sides(OWN, OTHER, talk)
  mine = words(OWN, own["tokens"], own["spans"])
  assert mine == words(OTHER, theirs["tokens"], theirs["spans"])
  said = [m["content"] for m in text.messages_of(talk)]
  whole = "".join(f"{x}!" for x in said[1::2])
  assert b"".join(mine[n] for n in sorted(mine)).decode() == whole
  assert len(own["tokens"]) != len(theirs["tokens"])


def test_documents_have_no_sides():
  with pytest.raises(ValueError, match="reads conversations alone"):
    align.sides(OWN, OTHER, {"text": "a b"})


def batch():
  """Three conversations in two packed rows."""
  made = [text.example(OWN, talk) for talk in TALKS]
  return packing.to_batch([[made[1], made[2]], [made[0]]], 64, pad=OWN.pad)


def test_packed_rows_in_other_tokens():
  rows = batch()
  beside = align.Beside(OWN, OTHER, TALKS)
  found = beside.along(np.asarray(rows.tokens_BT), np.asarray(rows.segments_BT))
  assert found.rows.tokens_BT.shape == found.spans_BS.shape == (2, 192)
  for b, talks in enumerate(([TALKS[1], TALKS[2]], [TALKS[0]])):
    later = lambda tokens: np.roll(tokens, -1)
    mine = words(OWN, later(rows.tokens_BT[b]), found.spans_BT[b])
    other = later(found.rows.tokens_BT[b])
    assert mine == words(OTHER, other, found.spans_BS[b])
    said = [m["content"] for t in talks for m in text.messages_of(t)[1::2]]
    told = b"".join(mine[n] for n in sorted(mine)).decode()
    assert told == "".join(f"{x}!" for x in said)


def test_where_both_go_on_from_the_same_text():
  """What each has said of its turn up to there, and that some do not meet."""
  rows = batch()
  beside = align.Beside(OWN, OTHER, TALKS)
  found = beside.along(np.asarray(rows.tokens_BT), np.asarray(rows.segments_BT))
  for b in range(2):
    met = np.flatnonzero(found.at_BT[b] >= 0)
    assert len(met) == found.spans_BT[b].max()
    for t in met:
      s = found.at_BT[b, t]
      assert found.spans_BT[b, t] == found.spans_BS[b, s]
      for spans, at in ((found.spans_BT[b], t), (found.spans_BS[b], s)):
        assert at == 0 or spans[at - 1] != spans[at]
  assert (found.at_BT >= 0).sum() < (np.asarray(rows.weights_BT) > 0).sum()


def test_a_segment_of_another_corpus():
  rows = batch()
  beside = align.Beside(OWN, OTHER, TALKS[:2])
  with pytest.raises(ValueError, match="segment 2 is no conversation"):
    beside.along(np.asarray(rows.tokens_BT), np.asarray(rows.segments_BT))
