"""A teacher's candidates for a corpus, written once and read by any student."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np
from rich import progress

from experiments import files, settings, student
from experiments.settings import Run, Stage
from research import divergence, sharding
from research.data import jsonl, packing, signals, text
from research.training import objectives
from research.types import Sparse


@dataclasses.dataclass(frozen=True)
class Config:
  """`teacher` names the stage whose model speaks about the corpora's examples.

  It keeps `candidates` a token, reads `rows` rows of `length` tokens at once,
  and writes a file every `part` examples. `teacher_bits` hold it in few bits.
  """

  run: Run
  corpora: tuple[str, ...]
  teacher: Stage
  candidates: int
  rows: int
  length: int
  part: int = 4096
  teacher_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on numbers that record nothing."""
    if min(self.candidates, self.rows, self.length, self.part) < 1:
      raise ValueError(f"{self}: these must be at least 1")
    if self.candidates > self.run.model.vocab:
      raise ValueError(
        f"record: {self.candidates} candidates of {self.run.model.vocab} tokens"
      )


def _examples(config: Config, inputs: dict[str, Any]) -> list[packing.Example]:
  """Returns what fits a row, each once: its key is all that tells it apart."""
  tokenizer = settings.load_tokenizer(config.run)
  found: dict[bytes, packing.Example] = {}
  for path in config.corpora:
    records = jsonl.read(files.located(path, inputs))
    for record in text.cut(tokenizer, records, config.length):
      example = text.example(tokenizer, record)
      if packing.size_of(example) <= config.length:
        found.setdefault(signals.key_of(example["tokens"]), example)
  return list(found.values())


def _said(
  examples: list[packing.Example], rows: list[packing.Row], signal: Sparse
) -> Iterator[tuple[np.ndarray, signals.Signals]]:
  """Cuts the rows' signals into their examples', in the order given."""
  where = {}
  for b, row in enumerate(rows):
    start = 0
    for example in row:
      stop = start + packing.size_of(example)
      where[id(example)] = b, slice(start, stop)
      start = stop
  ids_BTC, logprobs_BTC, tail_BT = map(
    np.asarray, (signal.ids_BTC, signal.logprobs_BTC, signal.tail_BT)
  )
  for example in examples:
    at = where[id(example)]
    kept_T = np.append(example["mask"][1:] > 0, False)
    yield (
      example["tokens"],
      signals.Signals(kept_T, ids_BTC[at], logprobs_BTC[at], tail_BT[at]),
    )


def _taken(
  examples: list[packing.Example], config: Config
) -> tuple[list[packing.Example], list[packing.Row]]:
  """Returns the examples that fit the next rows, in order, and these rows."""
  rows: list[packing.Row] = [[] for _ in range(config.rows)]
  free = [config.length] * config.rows
  for n, example in enumerate(examples):
    place = packing.first_fit(free, packing.size_of(example))
    if place is None:
      return examples[:n], rows
    rows[place].append(example)
    free[place] -= packing.size_of(example)
  return examples, rows


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes signals/; returns how many examples, tokens and bytes a token."""
  mesh = student.make_mesh(config)
  tokenizer, folder = settings.load_tokenizer(config.run), workdir / "signals"
  model, frozen, tokens = student.teacher(config, inputs, mesh, config.teacher)

  if config.candidates > tokens:
    raise ValueError(f"record: {config.candidates} candidates of {tokens}")

  @jax.jit
  def speak(params: Any, batch: Any) -> Sparse:
    said = objectives.speak(model, params, batch, mesh)
    said = objectives.over(tokens, said)
    return divergence.candidates(said, config.candidates)

  every = _examples(config, inputs)

  def stream() -> Iterator[tuple[np.ndarray, signals.Signals]]:
    left = every[signals.done(folder) * config.part :]
    with progress.Progress(transient=True) as bar:
      task = bar.add_task(workdir.name.rjust(13), total=len(left))
      while left:
        taken, rows = _taken(left, config)
        batch = packing.to_batch(rows, config.length, pad=tokenizer.pad)
        yield from _said(
          taken, rows, speak(frozen, sharding.place(batch, mesh))
        )
        left = left[len(taken) :]
        bar.update(task, advance=len(taken))

  about = {"C": config.candidates, "vocab": tokens}
  about |= {"teacher": config.teacher, "tokenizer": tokenizer.fingerprint()}
  signals.write(folder, about, stream(), config.part)
  learned = sum(int((e["mask"][1:] > 0).sum()) for e in every)
  size = sum(path.stat().st_size for path in folder.iterdir())
  return {
    "examples": len(every),
    "tokens": learned,
    "bytes_per_token": size / max(learned, 1),
  }
