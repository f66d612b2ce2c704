"""What written text costs a student: the nats of each of many examples."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from research import divergence, segments, sharding
from research.data import packing
from research.models.config import Model
from research.training import objectives
from research.types import Batch

Batches = list[tuple[list[int], Batch]]


def batches(
  examples: Sequence[packing.Example], *, rows: int, length: int, pad: int
) -> Batches:
  """Returns rows of examples, packed, and the examples' places in order.

  The last batch is filled up with empty rows. Examples longer than `length`
  are in none.
  """
  place = {id(example): i for i, example in enumerate(examples)}
  packed, found = packing.pack(examples, length).rows, []
  for start in range(0, len(packed), rows):
    taken = packed[start : start + rows]
    taken += [[] for _ in range(rows - len(taken))]
    batch = packing.to_batch(taken, length, pad=pad)
    found.append(([place[id(e)] for row in taken for e in row], batch))
  return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def nats(model: Model, mesh: Mesh, params: Any, batch: Batch) -> jax.Array:
  """Returns nats_BT of the next token, 0 where it is not learned."""
  said = objectives.speak(model, params, batch, mesh)
  targets_BT = segments.next_tokens(batch.tokens_BT)
  logprobs_BT, _ = divergence.of_tokens(said, targets_BT)
  return -logprobs_BT * batch.weights_BT


def costs(
  model: Model, mesh: Mesh, params: Any, read: Batches
) -> dict[int, tuple[float, float]]:
  """Returns the nats of each example and its learned tokens, by its place."""
  found: dict[int, tuple[float, float]] = {}
  for places, batch in read:
    nats_BT = nats(model, mesh, params, sharding.place(batch, mesh))
    each = []
    for ids_T, *both in zip(
      batch.segments_BT, np.asarray(nats_BT), batch.weights_BT, strict=True
    ):
      sums = (np.bincount(ids_T, x_T)[1:] for x_T in both)  # 0 is padding
      each += zip(*sums, strict=True)
    found |= zip(places, each, strict=True)
  return found
