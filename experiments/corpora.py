"""Corpora for a stage: JSONL files, mixed, packed, drawn a batch at a time."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from experiments import files, settings
from experiments.settings import Run
from research.data import jsonl, packing, text
from research.data.loader import Loader
from research.types import Batch


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A JSONL file; `{stage}` at its head stands for that stage's folder.

  It is drawn from in the share `weight`, by records, of which conversations too
  long for a row are passed over; a document is as many as it fills rows. Each
  of its tokens counts `scale` in the loss, or, `per` record, all tokens of a
  record together do.
  """

  path: str
  weight: float = 1.0
  scale: float = 1.0
  per: Literal["token", "record"] = "token"

  def __post_init__(self):
    """Raises ValueError on shares and scales that unlearn."""
    if min(self.weight, self.scale) <= 0:
      raise ValueError(f"{self}: weight and scale must be above 0")


def _encode(
  tokenizer: text.Tokenizer, record: tuple[Corpus, Mapping[str, Any]]
) -> packing.Example:
  """Returns a record's tokens, and in their mask what each of them counts."""
  corpus, said = record
  example = text.example(tokenizer, said)
  whole = example["mask"].sum() if corpus.per == "record" else 1
  counts = example["mask"] * np.float32(corpus.scale / whole)
  return example | {"mask": counts}


def _records(
  corpus: Corpus,
  inputs: dict[str, Any],
  tokenizer: text.Tokenizer,
  length: int,
) -> list[tuple[Corpus, Mapping[str, Any]]]:
  """Returns a corpus's records, its documents as rows of them."""
  records = jsonl.read(files.located(corpus.path, inputs))
  return [(corpus, r) for r in text.cut(tokenizer, records, length)]


def loader(
  run: Run,
  corpora: Sequence[Corpus],
  inputs: dict[str, Any],
  *,
  rows: int,
  length: int,
  shards: int,
  seed: int,
) -> Loader:
  """Returns the endless packed batches of a mixture."""
  tokenizer = settings.load_tokenizer(run)
  return Loader(
    [_records(corpus, inputs, tokenizer, length) for corpus in corpora],
    functools.partial(_encode, tokenizer),
    length=length,
    rows=rows,
    shards=shards,
    seed=seed,
    pad=tokenizer.pad,
    weights=[corpus.weight for corpus in corpora],
    host=jax.process_index(),
    hosts=jax.process_count(),
  )


def conversations(
  corpora: Sequence[Corpus], inputs: dict[str, Any]
) -> list[Mapping[str, Any]]:
  """Returns all records of a mixture, as they were written."""
  paths = [files.located(corpus.path, inputs) for corpus in corpora]
  return [record for path in paths for record in jsonl.read(path)]


def look(batch: Batch, *loaders: Loader) -> dict[str, tuple[float, float]]:
  """Returns how much of a batch is not padding, and how much is learned, and
  how many examples were too long for a row so far, whichever loader met them.
  """
  real = float((batch.segments_BT > 0).sum())
  return {
    "fill": (real, float(batch.tokens_BT.size)),
    "learned_tokens": (float((batch.weights_BT > 0).sum()), 1.0),
    "too_long": (float(sum(loader.rejected for loader in loaders)), 1.0),
  }
