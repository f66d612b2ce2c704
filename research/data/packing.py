"""Examples into rows of a fixed length, and rows into arrays.

An example is a dict of 1-D arrays of one length: `tokens`, `mask`, and any
per-token extras. Its `mask` is token-aligned; the arrays that leave here are
prediction-aligned, as `research.types` states. Nothing is ever truncated.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from research import types

Example = dict[str, np.ndarray]
Row = list[Example]


class Stream(Protocol):
  """Examples without end, each found by its index."""

  def __getitem__(self, index: int, /) -> Any:
    """The example at `index`."""
    ...


class Packed(NamedTuple):
  """Rows of examples, and how many examples were too long for any row."""

  rows: list[Row]
  rejected: int


class Filled(NamedTuple):
  """Rows, the position after the last example read, and the rejected count."""

  rows: list[Row]
  position: int
  rejected: int


def first_fit(free: Sequence[int], size: int) -> int | None:
  """The first place with room for `size`, or None."""
  return next((i for i, room in enumerate(free) if room >= size), None)


def pack(examples: Iterable[Example], length: int) -> Packed:
  """Packs a finite set by first fit into as many rows as it takes."""
  rows: list[Row] = []
  free: list[int] = []
  rejected = 0
  for example in examples:
    size = size_of(example)
    if size > length:
      rejected += 1
      continue
    place = first_fit(free, size)
    if place is None:
      place = len(rows)
      rows.append([])
      free.append(length)
    rows[place].append(example)
    free[place] -= size
  return Packed(rows, rejected)


def fill(
  stream: Stream,
  position: int,
  *,
  rows: int,
  length: int,
  patience: int,
) -> Filled:
  """Fills `rows` rows by first fit, reading `stream` on from `position`.

  The first example without room ends the filling and opens the next one, so
  the result depends on the stream and the position alone. `patience` bounds
  the too-long examples in a row; beyond it a ValueError names the length.
  """
  packed: list[Row] = [[] for _ in range(rows)]
  free = [length] * rows
  rejected = streak = 0
  while True:
    example = stream[position]
    size = size_of(example)
    if size > length:
      rejected, streak = rejected + 1, streak + 1
      if streak > patience:
        raise ValueError(
          f"{streak} examples on end are longer than length {length} (the last "
          f"has {size} tokens); raise the length or shorten the data"
        )
    else:
      streak, place = 0, first_fit(free, size)
      if place is None:
        return Filled(packed, position, rejected)
      packed[place].append(example)
      free[place] -= size
    position += 1


def size_of(example: Example) -> int:
  """The tokens of an example; ValueError where its arrays disagree."""
  sizes = {name: np.shape(array) for name, array in example.items()}
  size = len(example["tokens"])
  if size == 0 or set(sizes.values()) != {(size,)}:
    raise ValueError(
      f"an example's arrays must be 1-D, of one length, not empty: {sizes}"
    )
  return size


def lay_out(
  rows: Sequence[Row],
  length: int,
  *,
  pad: int,
  shifted: Sequence[str] = ("mask",),
) -> dict[str, np.ndarray]:
  """Lays rows out as arrays [B, T]: tokens, positions, segments and extras.

  An array named in `shifted` is about its own token on the host and moves one
  to the left inside its segment, where it is about the next token; a segment's
  last place then holds 0. Other extras stay where their tokens are. Raises
  ValueError where a row is longer than `length` or keys differ.
  """
  _check_room(rows, length)
  names = _names(rows, shifted)
  shape = (len(rows), length)
  out = {name: np.zeros(shape, kind) for name, kind in names.items()}
  out["tokens"] = np.full(shape, pad, np.int32)
  out["positions"] = np.zeros(shape, np.int32)
  out["segments"] = np.zeros(shape, np.int32)
  for b, row in enumerate(rows):
    start = 0
    for segment, example in enumerate(row, 1):
      stop = start + size_of(example)
      out["positions"][b, start:stop] = np.arange(stop - start)
      out["segments"][b, start:stop] = segment
      for name, array in example.items():
        if name in shifted:
          out[name][b, start : stop - 1] = array[1:]
        else:
          out[name][b, start:stop] = array
      start = stop
  return out


def _check_room(rows: Sequence[Row], length: int) -> None:
  """Raises ValueError for a row of more than `length` tokens."""
  for b, row in enumerate(rows):
    size = sum(map(size_of, row))
    if size > length:
      raise ValueError(
        f"row {b} has {size} tokens, more than the length {length}; rows are "
        "never truncated"
      )


def _names(rows: Sequence[Row], shifted: Sequence[str]) -> dict[str, np.dtype]:
  """The arrays that all examples share, and a type that holds each.

  Raises ValueError where keys differ, or a `shifted` one is not among them.
  """
  examples = [example for row in rows for example in row]
  if not examples:
    return {name: np.dtype(np.int32) for name in ("tokens", *shifted)}
  names = set(examples[0])
  for example in examples:
    if set(example) != names:
      raise ValueError(f"examples differ: {sorted(names)}, {sorted(example)}")
  if not names >= set(shifted):
    raise ValueError(
      f"examples have {sorted(names)}; not all of the shifted {sorted(shifted)}"
    )
  return {
    name: np.result_type(*(example[name] for example in examples))
    for name in names
  }


def to_batch(rows: Sequence[Row], length: int, *, pad: int) -> types.Batch:
  """Rows as a Batch of numpy arrays: weights_BT[t] is the mask of token t+1."""
  out = lay_out(rows, length, pad=pad)
  return types.Batch(
    tokens_BT=out["tokens"],  # pyright: ignore[reportArgumentType]
    weights_BT=out["mask"].astype(np.float32),  # pyright: ignore
    positions_BT=out["positions"],  # pyright: ignore[reportArgumentType]
    segments_BT=out["segments"],  # pyright: ignore[reportArgumentType]
  )


def pad_rows(
  examples: Sequence[Example],
  length: int,
  *,
  pad: int,
  shifted: Sequence[str] = ("mask",),
) -> dict[str, np.ndarray]:
  """One example a row, as rollouts want it: see `lay_out`."""
  return lay_out(
    [[example] for example in examples], length, pad=pad, shifted=shifted
  )
