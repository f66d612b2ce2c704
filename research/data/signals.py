"""A teacher's candidates on disk, found by the tokens that they are about.

A record holds one example: of each token that is learned from, the C likeliest
next tokens, their log-probabilities and the mass of all others. Ids take as
many bits as the vocabulary needs. A log-probability is kept as its distance d
from the likeliest's, in 256 steps that are even in sqrt(d): fine where the mass
is. The tail is a float16, and what is read back sums to 1 again. At C = 50 and
a vocabulary of 151,936 that is 167 bytes a token, and 32 a record.

    signals-00003.array_record     the records of part 3, each with its CRC-32
                                   and its key
    signals-00003.keys             16 bytes a record: SHA-256 of its tokens
    about.json                     the format, C, the vocabulary, who spoke

A part's keys appear when it is whole, so that a writer that was killed goes on
with the part that it was in.
"""

import hashlib
import itertools
import json
import pathlib
import struct
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from array_record.python import (
  array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)

from research.types import Sparse

FORMAT = 2  # 1 had no key in a record
KEY = 16  # bytes
# CRC-32 of what follows, the key, T, C, vocabulary.
_HEAD = struct.Struct(f"<I{KEY}sIII")


class Signals(NamedTuple):
  """What a teacher says of one example's tokens, prediction-aligned.

  `kept_T` marks the tokens that it is asked about; what stands at the others
  has no meaning. Log-probabilities fall along C.
  """

  kept_T: np.ndarray
  ids_TC: np.ndarray
  logprobs_TC: np.ndarray
  tail_T: np.ndarray


def key_of(tokens: np.ndarray) -> bytes:
  """What an example is found by: all of its tokens, and nothing else."""
  return hashlib.sha256(tokens.astype("<i4").tobytes()).digest()[:KEY]


def encode(key: bytes, signals: Signals, vocab: int) -> bytes:
  """Packs what is said of the example of that key; see the module for how."""
  kept_T, ids_TC, logprobs_TC, tail_T = signals
  ids_nC, logprobs_nC = ids_TC[kept_T], logprobs_TC[kept_T]
  distance_nC = np.maximum(logprobs_nC[:, :1] - logprobs_nC, 0)
  farthest_n = distance_nC.max(1, initial=0).astype("<f2")
  scale_n1 = np.maximum(farthest_n.astype(np.float32), 1e-3)[:, None]
  share_nC = np.clip(distance_nC / scale_n1, 0, 1)
  body = b"".join(
    [
      np.packbits(kept_T).tobytes(),
      farthest_n.tobytes(),
      tail_T[kept_T].astype("<f2").tobytes(),
      np.rint(np.sqrt(share_nC) * 255).astype(np.uint8).tobytes(),
      np.packbits(_bits(ids_nC, _width(vocab))).tobytes(),
    ]
  )
  sizes = len(kept_T), ids_TC.shape[1], vocab
  told = _HEAD.pack(0, key, *sizes)[4:] + body
  return struct.pack("<I", zlib.crc32(told)) + told


def decode(key: bytes, data: bytes) -> Signals:
  """Unpacks what `encode` packed.

  Raises:
    ValueError: the checksum disagrees, or it speaks of another example.
  """
  crc, about, T, C, vocab = _HEAD.unpack_from(data)
  if zlib.crc32(data[4:]) != crc:
    raise ValueError("its checksum disagrees")
  if about != key:
    raise ValueError(f"it is of the tokens {about.hex()}, not {key.hex()}")
  at = _HEAD.size

  def take(dtype: Any, count: int) -> np.ndarray:
    nonlocal at
    found = np.frombuffer(data, dtype, count, at)
    at += found.nbytes
    return found

  kept_T = np.unpackbits(take(np.uint8, -(-T // 8)), count=T).astype(bool)
  n, width = int(kept_T.sum()), _width(vocab)
  farthest_n, tail_n = (take("<f2", n).astype(np.float32) for _ in range(2))
  share_nC = (take(np.uint8, n * C).reshape(n, C) / np.float32(255)) ** 2
  packed = take(np.uint8, -(-n * C * width // 8))
  bits = np.unpackbits(packed, count=n * C * width).reshape(n, C, width)
  ids_nC = (bits * (1 << np.arange(width))).sum(-1)
  distance_nC = share_nC * np.maximum(farthest_n, 1e-3)[:, None]
  # The likeliest's own is what makes the whole sum to 1.
  inside_n1 = np.log1p(-np.exp(tail_n))[:, None]
  total_n1 = np.log(np.exp(-distance_nC).sum(1, keepdims=True))
  logprobs_nC = inside_n1 - total_n1 - distance_nC
  return Signals(
    kept_T,
    _spread(kept_T, ids_nC.astype(np.int32), np.arange(C)),
    _spread(kept_T, logprobs_nC, -np.log(C + 1)),
    _spread(kept_T, tail_n, -np.log(C + 1)),
  )


def _width(vocab: int) -> int:
  """The bits of an id."""
  return max(1, (vocab - 1).bit_length())


def _bits(ids_nC: np.ndarray, width: int) -> np.ndarray:
  return (ids_nC[..., None] >> np.arange(width)).astype(np.uint8) & 1


def _spread(kept_T: np.ndarray, values: np.ndarray, other: Any) -> np.ndarray:
  """Values at the places that are kept, and something finite elsewhere."""
  out = np.empty((len(kept_T), *values.shape[1:]), values.dtype)
  out[:] = other
  out[kept_T] = values
  return out


def _part(directory: pathlib.Path, n: int, kind: str) -> pathlib.Path:
  return directory / f"signals-{n:05}.{kind}"


def done(directory: pathlib.Path) -> int:
  """Returns how many parts are whole."""
  n = 0
  while _part(directory, n, "keys").is_file():
    n += 1
  return n


def write(
  directory: pathlib.Path,
  about: dict[str, Any],
  examples: Iterable[tuple[np.ndarray, Signals]],
  part: int,
) -> None:
  """Writes (tokens, signals), `part` examples a file, behind what is there.

  `about` holds C and vocab, and whatever tells this cache from another one; the
  examples are those that follow the first `done(directory) * part`.

  Raises:
    ValueError: the directory holds a cache of something else.
  """
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / "about.json"
  text = json.dumps(about | {"format": FORMAT}, sort_keys=True)
  if path.is_file() and path.read_text() != text:
    raise ValueError(
      f"{path} says {path.read_text()}, and now it is {text}; use another "
      "folder"
    )
  path.write_text(text)
  stream = iter(examples)
  while batch := list(itertools.islice(stream, part)):
    _write_part(directory, done(directory), batch, about["vocab"])


def _write_part(directory, n: int, batch, vocab: int) -> None:
  records = _part(directory, n, "array_record")
  writer = array_record_module.ArrayRecordWriter(str(records), "group_size:1")
  keys = [key_of(tokens) for tokens, _ in batch]
  for key, (_, signals) in zip(keys, batch, strict=True):
    writer.write(encode(key, signals, vocab))
  writer.close()
  whole = _part(directory, n, "tmp")
  whole.write_bytes(b"".join(keys))
  whole.rename(_part(directory, n, "keys"))


class Cache:
  """Reads a cache in any order, along rows that are packed in any way."""

  def __init__(self, directory: pathlib.Path):
    """Reads the keys.

    Raises:
      FileNotFoundError: no cache was written here.
      ValueError: one was, in another format.
    """
    path = directory / "about.json"
    if not path.is_file() or not done(directory):
      raise FileNotFoundError(f"{directory} holds no signals; write them first")
    self.about = json.loads(path.read_text())
    if (found := self.about.get("format", 1)) != FORMAT:
      raise ValueError(
        f"{path}: these signals are in format {found}, and {FORMAT} is read; "
        "write them anew in another folder"
      )
    self._directory, self._at = directory, {}
    for n in range(done(directory)):
      keys = _part(directory, n, "keys").read_bytes()
      for i in range(len(keys) // KEY):
        self._at[keys[i * KEY : (i + 1) * KEY]] = n, i
    self._readers: dict[int, Any] = {}

  def __len__(self) -> int:
    """How many examples it speaks of."""
    return len(self._at)

  def along(self, tokens_BT: np.ndarray, segments_BT: np.ndarray) -> Sparse:
    """Returns what the teacher says of packed rows, as NumPy arrays.

    Raises:
      ValueError: a segment's tokens are not here, or its record is damaged or
        another example's.
    """
    shape, C = tokens_BT.shape, self.about["C"]
    ids_BTC = np.empty((*shape, C), np.int32)
    logprobs_BTC = np.full((*shape, C), -np.log(C + 1), np.float32)
    tail_BT = np.full(shape, -np.log(C + 1), np.float32)
    ids_BTC[:] = np.arange(C)
    for b, row in enumerate(segments_BT):
      for segment in range(1, int(row.max(initial=0)) + 1):
        here = np.flatnonzero(row == segment)
        found = self._find(tokens_BT[b, here], f"row {b}, segment {segment}")
        ids_BTC[b, here] = found.ids_TC
        logprobs_BTC[b, here], tail_BT[b, here] = (
          found.logprobs_TC,
          found.tail_T,
        )
    return Sparse(ids_BTC, logprobs_BTC, tail_BT)  # type: ignore[arg-type]

  def _find(self, tokens: np.ndarray, where: str) -> Signals:
    key = key_of(tokens)
    if key not in self._at:
      raise ValueError(
        f"{where}: {self._directory} has no signals of these {len(tokens)} "
        "tokens; it was written for another corpus, tokenizer or template"
      )
    n, i = self._at[key]
    path = _part(self._directory, n, "array_record")
    try:
      if n not in self._readers:
        self._readers[n] = array_record_module.ArrayRecordReader(str(path))
      [data] = self._readers[n].read([i])
      return decode(key, data)
    except (ValueError, RuntimeError, IndexError, struct.error) as error:
      raise ValueError(
        f"{path}: record {i} is damaged or out of its place: {error}; bring "
        "the file back, or write the signals anew"
      ) from error
