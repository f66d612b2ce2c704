"""Safetensors files as bytes with names: read a tensor at a time, or written.

A file is the length of a header (8 bytes, little endian), the header in JSON,
{name: {"dtype", "shape", "data_offsets"}}, and the tensors without a gap. A
file is looked through before a byte of a tensor is used, and nothing in it is
ever executed.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(jnp.bfloat16),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# What a file whose JSON is not what it should be may end in.
DAMAGED = (
  ValueError,
  TypeError,
  KeyError,
  AttributeError,
  ZeroDivisionError,
  RecursionError,
)
_LONGEST = 100_000_000  # bytes of a header, as the format has it


class Stored(NamedTuple):
  """Where a tensor lies."""

  path: pathlib.Path
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int

  @property
  def size(self) -> int:
    """Its bytes."""
    return math.prod(self.shape) * self.dtype.itemsize

  def read(self) -> np.ndarray:
    """Returns the tensor; ValueError where the file ends before it does."""
    x = np.empty(self.shape, self.dtype)
    into = memoryview(x.reshape(-1).view(np.uint8))
    with self.path.open("rb", buffering=0) as file:
      file.seek(self.start)
      done = 0
      while done < len(into) and (got := file.readinto(into[done:])):
        done += got
    if done < len(into):
      raise ValueError(f"{self.path} was cut short while it was read")
    return x


def index(directory: pathlib.Path) -> dict[str, Stored]:
  """Returns every tensor of a checkpoint, in one file or in several.

  Raises:
    FileNotFoundError: there is no safetensors file.
    ValueError: a file is damaged, or the index and its files disagree.
  """
  listed = directory / INDEX
  if listed.is_file():
    return _indexed(directory, listed)
  if (directory / SINGLE).is_file():
    return header(directory / SINGLE)
  pickled = sorted(p.name for p in directory.glob("*.bin"))
  hint = f"; {pickled[0]} is a pickle, which Pith never opens" * bool(pickled)
  raise FileNotFoundError(f"{directory} has no {SINGLE} and no {INDEX}{hint}")


def fingerprint(directory: pathlib.Path) -> str:
  """Returns what tells a checkpoint from others: SHA-256, without reading all.

  It covers config.json and of each tensor its name, dtype, shape and first 4
  KiB, which any training moves; in how many files they lie is no matter.
  """
  sha = hashlib.sha256((directory / "config.json").read_bytes())
  for name, stored in sorted(index(directory).items()):
    sha.update(f"{name} {stored.dtype} {stored.shape}".encode())
    with stored.path.open("rb") as file:
      file.seek(stored.start)
      sha.update(file.read(min(4096, stored.size)))
  return sha.hexdigest()


def _indexed(
  directory: pathlib.Path, listed: pathlib.Path
) -> dict[str, Stored]:
  try:
    weight_map = json.loads(listed.read_text(encoding="utf-8"))["weight_map"]
    files = sorted({str(name) for name in weight_map.values()})
  except DAMAGED as error:
    raise ValueError(f"{listed} has no weight_map: {error!r}") from error
  if SINGLE not in files and (directory / SINGLE).is_file():
    raise ValueError(
      f"{directory} holds {SINGLE} and, by {INDEX}, other files: programs do "
      "not agree which of them to read; remove what is stale"
    )
  found: dict[str, Stored] = {}
  for name in files:
    if name != pathlib.PurePath(name).name or name in (".", ".."):
      raise ValueError(f"{listed} points outside of its directory: {name!r}")
    if not (directory / name).is_file():
      raise ValueError(f"{listed} names {name}, which is not there")
    tensors = header(directory / name)
    if twice := found.keys() & tensors.keys():
      raise ValueError(f"{directory / name}: {min(twice)} is in another file")
    found |= tensors
  for name, stored in found.items():
    if weight_map.get(name) != stored.path.name:
      raise ValueError(f"{stored.path} holds {name}; {INDEX} says otherwise")
  if lost := weight_map.keys() - found.keys():
    name = min(lost)
    raise ValueError(f"{directory / weight_map[name]} lacks {name}")
  return found


def header(path: pathlib.Path) -> dict[str, Stored]:
  """Returns the tensors of one file.

  Raises:
    ValueError: the header is damaged, or the tensors do not fill the file.
  """
  size = path.stat().st_size
  with path.open("rb") as file:
    head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
    if length > min(_LONGEST, size - 8):
      raise ValueError(f"{path} is no safetensors file, or was cut short")
    text = file.read(length)
  try:
    entries = json.loads(text, object_pairs_hook=_once)
    entries.pop("__metadata__", None)
    found = {
      name: _stored(path, name, entry, 8 + length)
      for name, entry in entries.items()
    }
  except DAMAGED as error:
    raise ValueError(f"{path} has a damaged header: {error}") from error
  at = 8 + length
  for name, tensor in sorted(found.items(), key=lambda x: x[1].start):
    if tensor.start != at:
      raise ValueError(f"{path}: {name} begins at {tensor.start}, not {at}")
    at += tensor.size
  if at != size:
    raise ValueError(f"{path} has {size} bytes; its header speaks of {at}")
  return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  names = [name for name, _ in pairs]
  if len(set(names)) < len(names):
    raise ValueError("a name stands there twice")
  return dict(pairs)


def _stored(
  path: pathlib.Path, name: str, entry: dict[str, Any], base: int
) -> Stored:
  start, end = entry["data_offsets"]
  shape = tuple(entry["shape"])
  if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
    raise ValueError(f"{name}: shape {shape} or offsets {start}, {end}")
  if entry["dtype"] not in _DTYPES:
    known = ", ".join(_DTYPES)
    raise ValueError(f"{name}: dtype {entry['dtype']}, none of {known}")
  dtype = _DTYPES[entry["dtype"]]
  if end - start != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{name}: {end - start} bytes for {shape} of {dtype}")
  return Stored(path, dtype, shape, base + start)


class Item(NamedTuple):
  """A tensor that is to be written: made when its turn comes."""

  name: str
  dtype: np.dtype
  shape: tuple[int, ...]
  make: Callable[[], np.ndarray]

  @property
  def size(self) -> int:
    """Its bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


@contextlib.contextmanager
def appearing(
  directory: str | os.PathLike[str],
) -> Iterator[pathlib.Path]:
  """Yields a folder that becomes `directory` at the end, whole, or never.

  Raises:
    FileExistsError: something is there already: nothing is overwritten.
  """
  directory = pathlib.Path(directory)
  if directory.exists():
    raise FileExistsError(f"{directory} is there already; choose another name")
  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=f".{directory.name}.", dir=directory.parent
  ) as temporary:
    made = pathlib.Path(temporary) / directory.name
    made.mkdir()
    yield made
    made.rename(directory)


def write(directory: pathlib.Path, items: Iterable[Item], most: int) -> None:
  """Writes tensors in order, into files of at most `most` bytes each.

  One file is called model.safetensors; several have an index beside them.
  """
  shards: list[list[Item]] = [[]]
  for item in items:
    full = sum(x.size for x in shards[-1]) + item.size > most
    if shards[-1] and full:
      shards.append([])
    shards[-1].append(item)
  n = len(shards)
  several = [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
  names = [SINGLE] if n == 1 else several
  for name, shard in zip(names, shards, strict=True):
    _write_one(directory / name, shard)
  if n > 1:
    total = sum(item.size for shard in shards for item in shard)
    where = {
      item.name: name
      for name, shard in zip(names, shards, strict=True)
      for item in shard
    }
    listed = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / INDEX).write_text(json.dumps(listed, indent=2) + "\n")


def _write_one(path: pathlib.Path, shard: list[Item]) -> None:
  entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  at = 0
  for item in shard:
    entries[item.name] = {
      "dtype": _NAMES[item.dtype],
      "shape": list(item.shape),
      "data_offsets": [at, at + item.size],
    }
    at += item.size
  text = json.dumps(entries, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # tensors begin aligned
  with path.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for item in shard:
      x = np.ascontiguousarray(item.make())
      file.write(memoryview(x.reshape(-1).view(np.uint8)))
    file.flush()
    os.fsync(file.fileno())


def sizes(found: Mapping[str, Stored]) -> int:
  """Returns the bytes of all tensors."""
  return sum(x.size for x in found.values())
