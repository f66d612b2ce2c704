"""What held-out text costs students, in nats a token."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import files, reading, settings, student
from experiments.settings import Run, Stage
from research.data import jsonl, packing, text
from research.evaluation import intervals


@dataclasses.dataclass(frozen=True)
class Config:
  """`corpus` is a JSONL file; `{stage}` in its path is that stage's folder.

  Conversations, and pieces of documents, are packed, `rows` rows of `length`
  tokens at once; longer conversations are left out. Names of the summary begin
  with `prefix`, "" or "name/". `pairs` are (left, right) to subtract.
  """

  run: Run
  students: tuple[Stage, ...]
  corpus: str
  rows: int
  length: int
  prefix: str = ""
  pairs: tuple[tuple[Stage, ...], ...] = ()

  def __post_init__(self):
    """Raises ValueError on rows that cannot be and on pairs of others."""
    if min(self.rows, self.length) < 1:
      raise ValueError(f"{self}: rows and length must be at least 1")
    settings.check_prefix(self.prefix)
    student.check_length(self, self.length)
    settings.check_pairs(self.pairs, self.students)


def _batches(
  config: Config, inputs: dict[str, Any]
) -> tuple[reading.Batches, list[int], int]:
  """Returns batches of examples, the record of each, and how many are too long.

  A conversation is one example, a document as many as it has pieces.
  """
  tokenizer = settings.load_tokenizer(config.run)
  records = jsonl.read(files.located(config.corpus, inputs))
  examples = [
    (i, text.example(tokenizer, piece))
    for i, record in enumerate(records)
    for piece in text.cut(tokenizer, [record], config.length)
  ]
  fitting = [x for x in examples if packing.size_of(x[1]) <= config.length]
  if not fitting:
    raise ValueError(
      f"{config.corpus}: none of {len(examples)} conversations fits "
      f"{config.length} tokens: raise length"
    )
  owners, read = zip(*fitting, strict=True)
  batches = reading.batches(
    read, rows=config.rows, length=config.length, pad=tokenizer.pad
  )
  return batches, list(owners), len(examples) - len(fitting)


def by_record(
  costs: dict[int, tuple[float, float]], owners: Sequence[int]
) -> dict[str, float]:
  """Returns the nats a learned token of each record, over all its pieces."""
  nats: dict[int, float] = collections.defaultdict(float)
  tokens: dict[int, float] = collections.defaultdict(float)
  for place in sorted(costs):
    nats[owners[place]] += costs[place][0]
    tokens[owners[place]] += costs[place][1]
  return {str(i): nats[i] / tokens[i] for i in nats}


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Scores every student; returns student/nats, and left_minus_right/nats.

  Intervals are over conversations and documents, each as heavy as any other.
  """
  del workdir
  model, mesh = config.run.model, student.make_mesh(config)
  batches, owners, left_out = _batches(config, inputs)
  nats: dict[str, dict[str, float]] = {}
  for name in config.students:
    params = student.load(config, inputs, name, mesh)
    costs = reading.costs(model, mesh, params, batches)
    nats[name] = by_record(costs, owners)
  seed = config.run.seed
  found = {
    f"{config.prefix}{n}/nats": intervals.bootstrap(x, seed=seed)
    for n, x in nats.items()
  }
  for left, right in config.pairs:
    difference = intervals.paired(nats[left], nats[right], seed=seed)
    found[f"{config.prefix}{left}_minus_{right}/nats"] = difference
  return {"scored": len(set(owners)), "left_out": left_out, "summary": found}
