"""A deterministic, resumable pipeline over a fixed number of virtual shards.

Row r of step s depends on (seed, s, r) alone. Each virtual shard reads its own
endless stream and packs its own rows; a host runs the shards that its rows
need. Positions are kept per shard, never per process, so that 1, 2 and 4 hosts
see the same rows and a state saved by one restores on another.
"""

import functools
import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from research import types
from research.data import packing

SMALL = 4096


def stream(
  sources: Sequence[Sequence[Any]],
  *,
  seed: int,
  weights: Sequence[float] | None = None,
  shard: int = 0,
  shards: int = 1,
) -> grain.MapDataset:
  """The endless stream of one shard: shuffled anew each epoch, then mixed.

  Over all shards each record comes once an epoch. `weights` mix by records, in
  exact proportion; None weighs the sources alike. An item depends on its index
  alone, so a program that reads record by record needs no other position.
  Raises ValueError for no source, an empty one, or bad weights.
  """
  if not sources:
    raise ValueError("there is no source to read")
  for i, source in enumerate(sources):
    if len(source) == 0:
      raise ValueError(f"source {i} of {len(sources)} is empty")
  if weights is not None and (
    len(weights) != len(sources) or min(weights) <= 0
  ):
    raise ValueError(
      f"{len(sources)} sources want as many positive weights, not "
      f"{list(weights)}"
    )
  parts = [
    _shuffled(source, _fold(seed, i))[shard::shards]
    for i, source in enumerate(sources)
  ]
  return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights)


def _shuffled(source: Sequence[Any], seed: int) -> grain.MapDataset:
  """The records of `source` without end, in a new order each epoch.

  grain's shuffle needs no memory, but walks a cycle of 2^16: 40 ms a read for
  two records, 1 ms for fifty. So the order of a small source is drawn whole.
  """
  size = len(source)
  if size >= SMALL:
    return grain.MapDataset.source(source).shuffle(seed=seed).repeat()

  @functools.lru_cache(maxsize=2)
  def order(epoch: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(size).tolist()

  read = lambda i: source[order(i // size)[i % size]]
  return grain.MapDataset.range(sys.maxsize).map(read)


def _fold(seed: int, index: int) -> int:
  """A 32-bit seed for one source.

  Hashed, because grain adds the epoch to it: plain neighbours would show each
  other's epochs.
  """
  digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
  return int.from_bytes(digest[:4], "big")


class Loader:
  """An endless iterator of packed batches; see the module for what it keeps.

  The batch is this host's part, in the order of hosts: `rows` / `hosts` rows of
  numpy arrays [B, T]. `encode` turns a record into an example. An example
  longer than `length` is passed over and counted in `rejected`.
  """

  def __init__(
    self,
    sources: Sequence[Sequence[Any]],
    encode: Callable[[Any], packing.Example],
    *,
    length: int,
    rows: int,
    shards: int,
    seed: int,
    pad: int,
    weights: Sequence[float] | None = None,
    host: int = 0,
    hosts: int = 1,
  ):
    """Raises ValueError for shapes that do not divide and for bad sources."""
    _check_shapes(rows, shards, host, hosts)
    sizes = [len(source) for source in sources]
    self._encode, self._pad = encode, pad
    self._patience = min(50 * sum(sizes), 10_000)
    self._plan = {
      "seed": seed,
      "rows": rows,
      "length": length,
      "shards": shards,
      "sizes": sizes,
      "weights": None if weights is None else [float(w) for w in weights],
    }
    share = shards // hosts
    self._streams = {
      str(shard): stream(
        sources, seed=seed, weights=weights, shard=shard, shards=shards
      ).map(encode)
      for shard in range(host * share, (host + 1) * share)
    }
    self._shards = {
      shard: {"position": 0, "rejected": 0} for shard in self._streams
    }

  def __iter__(self) -> "Loader":
    """Itself."""
    return self

  def __next__(self) -> types.Batch:
    """This host's rows of the next step."""
    length = self._plan["length"]
    rows, shards = [], {}
    for shard, examples in self._streams.items():
      filled = packing.fill(
        examples,
        self._shards[shard]["position"],
        rows=self._plan["rows"] // self._plan["shards"],
        length=length,
        patience=self._patience,
      )
      rows += filled.rows
      shards[shard] = {
        "position": filled.position,
        "rejected": self._shards[shard]["rejected"] + filled.rejected,
      }
    self._shards = shards
    return packing.to_batch(rows, length, pad=self._pad)

  @property
  def rejected(self) -> int:
    """Too-long examples that this host passed over so far."""
    return sum(shard["rejected"] for shard in self._shards.values())

  def state(self) -> dict[str, Any]:
    """What `restore` needs, as JSON values; see `merge` for several hosts."""
    shards = {name: dict(shard) for name, shard in self._shards.items()}
    return {"plan": dict(self._plan), "shards": shards}

  def restore(self, state: dict[str, Any]) -> None:
    """Goes on where `state` was taken, by whatever number of hosts.

    Raises ValueError where the state speaks of another plan or lacks a shard.
    """
    _check_same(state["plan"], self._plan)
    missing = set(self._shards) - set(state["shards"])
    if missing:
      raise ValueError(
        f"the loader's state lacks shards {sorted(missing, key=int)}; merge "
        "the states of all hosts first"
      )
    self._shards = {name: dict(state["shards"][name]) for name in self._shards}


def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """One state from the states of all hosts, taken at the same step.

  Raises ValueError where they speak of different plans or of one shard twice.
  """
  shards: dict[str, Any] = {}
  for state in states:
    _check_same(state["plan"], states[0]["plan"])
    twice = set(shards) & set(state["shards"])
    if twice:
      raise ValueError(f"two hosts' states hold shards {sorted(twice)}")
    shards |= state["shards"]
  return {"plan": states[0]["plan"], "shards": shards}


def _check_shapes(rows: int, shards: int, host: int, hosts: int) -> None:
  """Raises ValueError unless every shard, and every host, has equal work."""
  if min(rows, shards, hosts) < 1 or rows % shards or shards % hosts:
    raise ValueError(
      f"rows ({rows}) must divide by shards ({shards}), and shards by hosts "
      f"({hosts})"
    )
  if not 0 <= host < hosts:
    raise ValueError(f"host {host} is not one of {hosts} hosts")


def _check_same(saved: dict[str, Any], plan: dict[str, Any]) -> None:
  """Raises ValueError naming what differs between two plans."""
  names = [name for name in plan if saved.get(name) != plan[name]]
  if names:
    told = "; ".join(f"{n} {saved.get(n)} is now {plan[n]}" for n in names)
    raise ValueError(
      f"the loader's state was saved for other data or another shape: {told}"
    )
