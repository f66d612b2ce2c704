"""Two tokenizations of one text: where both of them end a token."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data import packing, signals, text
from research.data.packing import Example
from research.types import Batch, Parallel

_MULTIPLE = 64  # of tokens in a teacher's rows, so that few shapes are compiled


def spans(
  left: Sequence[bytes], right: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the span of each token on either side, counted from 1.

  A span is the shortest run of bytes that both cut out; pieces are the bytes
  that tokens stand for (`Tokenizer.piece`).

  Raises:
    ValueError: the pieces are not of one text; says where they part.
  """
  one, other = b"".join(left), b"".join(right)
  if one != other:
    at = next(
      (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
      min(len(one), len(other)),
    )
    raise ValueError(
      f"two tokenizations differ from byte {at} on: {one[at : at + 20]!r} and "
      f"{other[at : at + 20]!r}"
    )
  ends = lambda side: np.cumsum([len(piece) for piece in side])
  mine, theirs = ends(left), ends(right)
  shared = np.intersect1d(mine, theirs)
  # The span of a token is the first shared end at or behind its own.
  span = lambda end: (np.searchsorted(shared, end) + 1).astype(np.int32)
  return span(mine), span(theirs)


def sides(
  own: text.Tokenizer, theirs: text.Tokenizer, record: Mapping[str, Any]
) -> tuple[Example, Example]:
  """Returns a conversation under two tokenizers: `tokens` and `spans` of each.

  What the assistant says is cut into spans, counted from 1; the tokens that end
  its turns are spans too, and all others are in none, 0. Each side has its own
  template.

  Raises:
    ValueError: the record is a document, or the templates write the
      assistant's words differently.
  """
  if "text" in record:
    raise ValueError(
      "a teacher of other tokens reads conversations alone: give a corpus with "
      "messages, or with prompt and completion"
    )
  pair = own, theirs
  examples = [text.example(side, record) for side in pair]
  runs = [_runs(example["mask"]) for example in examples]
  if len(runs[0]) != len(runs[1]):
    raise ValueError(
      f"{len(runs[0])} turns of one template are the assistant's and "
      f"{len(runs[1])} of the other"
    )
  found = [np.zeros(len(e["tokens"]), np.int32) for e in examples]
  for places in zip(*runs, strict=True):
    ids = [e["tokens"][at] for e, at in zip(examples, places, strict=True)]
    marks = _turn(pair, ids)
    last = found[0].max()
    for spans_T, at, mark in zip(found, places, marks, strict=True):
      spans_T[at] = np.where(mark > 0, mark + last, 0)
  told = zip(examples, found, strict=True)
  one, other = ({"tokens": e["tokens"], "spans": s} for e, s in told)
  return one, other


def _runs(mask: np.ndarray) -> list[np.ndarray]:
  """Returns the places of each unbroken run of what is learned."""
  places = np.flatnonzero(mask)
  return [
    run
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    if len(run)
  ]


def _turn(
  pair: Sequence[text.Tokenizer], ids: Sequence[np.ndarray]
) -> list[np.ndarray]:
  """Returns the spans of one turn on either side; its end is the last."""
  ended = [run[-1] in side.stops for side, run in zip(pair, ids, strict=True)]
  bodies = [run[: len(run) - e] for run, e in zip(ids, ended, strict=True)]
  pieces = [
    [side.piece(int(i)) for i in body]
    for side, body in zip(pair, bodies, strict=True)
  ]
  marks = spans(*pieces)
  last = max((int(m.max(initial=0)) for m in marks), default=0) + 1
  ends = last if all(ended) else 0
  return [np.append(m, [ends] * e) for m, e in zip(marks, ended, strict=True)]


class Beside:
  """Finds what packed rows say in a teacher's tokens, by the student's."""

  def __init__(
    self,
    own: text.Tokenizer,
    theirs: text.Tokenizer,
    records: Iterable[Mapping[str, Any]],
  ):
    """Reads all conversations that rows may hold."""
    self._own, self._theirs = own, theirs
    self._records = {
      signals.key_of(text.example(own, record)["tokens"]): record
      for record in records
    }
    self._sides: dict[bytes, tuple[Example, Example]] = {}  # as asked for

  def along(self, tokens_BT: np.ndarray, segments_BT: np.ndarray) -> Parallel:
    """Returns the same texts in the teacher's tokens, as NumPy arrays.

    Raises:
      ValueError: a segment is no conversation that was read.
    """
    pairs = [
      self._row(*row) for row in zip(tokens_BT, segments_BT, strict=True)
    ]
    own, theirs = ([pair[i] for pair in pairs] for i in range(2))
    longest = max(sum(len(e["tokens"]) for e in row) for row in theirs)
    length = -(-max(longest, 1) // _MULTIPLE) * _MULTIPLE
    lay = lambda rows, size, pad: packing.lay_out(
      rows, size, pad=pad, shifted=("spans",)
    )
    mine = lay(own, tokens_BT.shape[1], self._own.pad)
    other = lay(theirs, length, self._theirs.pad)
    names = ("tokens", "positions", "segments")
    rows: dict[str, Any] = {f"{name}_BT": other[name] for name in names}
    rows["weights_BT"] = (other["spans"] > 0).astype(np.float32)
    said: dict[str, Any] = {
      "spans_BS": other["spans"],
      "spans_BT": mine["spans"],
      "at_BT": _meeting(mine["spans"], other["spans"]),
    }
    return Parallel(Batch(**rows), **said)

  def _row(
    self, tokens: np.ndarray, segments: np.ndarray
  ) -> tuple[list[Example], list[Example]]:
    """Returns one row's examples on both sides, spans counted through it."""
    own, theirs, last = [], [], 0
    for segment in range(1, int(segments.max(initial=0)) + 1):
      key = signals.key_of(tokens[segments == segment])
      if key not in self._records:
        raise ValueError(
          f"segment {segment} is no conversation of the corpora: a teacher of "
          "other tokens reads written text alone"
        )
      if key not in self._sides:
        told = sides(self._own, self._theirs, self._records[key])
        self._sides[key] = told
      pair = self._sides[key]
      for row, example in zip((own, theirs), pair, strict=True):
        spans_T = example["spans"]
        row.append(example | {"spans": spans_T + last * (spans_T > 0)})
      last += int(pair[0]["spans"].max())
    return own, theirs


def _meeting(spans_BT: np.ndarray, spans_BS: np.ndarray) -> np.ndarray:
  """Returns at_BT: the teacher's place where a span begins on both sides."""
  at_BT = np.full(spans_BT.shape, -1, np.int32)
  for at_T, spans_T, spans_S in zip(at_BT, spans_BT, spans_BS, strict=True):
    ids, first = np.unique(spans_T, return_index=True)
    theirs, place = np.unique(spans_S, return_index=True)
    _, mine, other = np.intersect1d(ids, theirs, return_indices=True)
    real = ids[mine] > 0
    at_T[first[mine][real]] = place[other][real]
  return at_BT
