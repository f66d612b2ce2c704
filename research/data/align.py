"""Two tokenizations of one text: where both of them end a token."""

from collections.abc import Sequence

import numpy as np


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
