"""A corpus to learn from or to be scored on, and what was not taken into it."""

import dataclasses
import pathlib
import random
from collections.abc import Mapping
from typing import Any, Literal

from experiments import files, held_out, settings, sieve
from experiments.held_out import HeldOut
from experiments.settings import Plugin, Run
from research.annotation import gates
from research.data import datasets, jsonl
from research.types import Problem, Trace

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
  """The `split` of a published set, or the JSONL file `path`, as records.

  `{stage}` in the path is that stage's folder. `form` "document" joins what a
  pair asks and answers into one text, "given" leaves all as it is. Their order
  is the seed's, and so are the `count` that are taken, if not all. `gates` are
  those of annotation, `held_out` what its `decontaminate` compares with.
  """

  run: Run
  published: str | None = None
  split: str = "train"
  path: str | None = None
  form: Literal["given", "document"] = "given"
  count: int | None = None
  gates: tuple[Plugin, ...] = ()
  held_out: tuple[HeldOut, ...] = ()
  data_dir: str | None = None
  cache_dir: str | None = None

  def __post_init__(self):
    """Raises ValueError where nothing is to be read, or two things are."""
    if (self.published is None) == (self.path is None):
      raise ValueError("corpus: either a published set or a path is wanted")
    if self.count is not None and self.count < 1:
      raise ValueError(f"corpus: count is {self.count}; at least 1 is wanted")


def _read(
  config: Config, inputs: dict[str, Any]
) -> tuple[list[Row], dict[str, list[int]]]:
  """Returns the records, each with a key, and a file's faults."""
  if config.path is not None:
    records, faults = jsonl.sift(files.located(config.path, inputs))
    name = pathlib.Path(config.path).name
  else:
    name, faults = f"{config.published}/{config.split}", {}
    rows = datasets.source(
      str(config.published), config.split, config.data_dir, config.cache_dir
    )
    records = [_record(row) for row in rows]
  keyed: list[Row] = [
    {"key": f"{name}/{i}", **record} for i, record in enumerate(records)
  ]
  return keyed, faults


def _record(row: Row) -> dict[str, Any]:
  """Returns a published row as a document, or as a question's answer."""
  if "text" in row:
    return {"text": row["text"]}
  return {"prompt": row["question"], "completion": row["answer"]}


def _formed(record: Row, form: str) -> Row:
  """Returns a record in the form that is asked for.

  Raises:
    ValueError: it is a conversation, of which there is no one text.
  """
  if form == "given" or "text" in record:
    return record
  if "messages" in record:
    raise ValueError(
      f"{record['key']}: a conversation is no document; leave form as given"
    )
  said = f"{record['prompt']}\n{record['completion']}"
  return {"key": record["key"], "text": said}


def _trace(i: int, record: Row) -> Trace:
  """Returns a record as gates read it: what is asked, what is learned."""
  messages = record.get("messages", ())
  wrote = lambda mine: "\n".join(
    m["content"] for m in messages if (m["role"] == "assistant") == mine
  )
  asked = record.get("prompt") or wrote(False)
  learned = record.get("text") or record.get("completion") or wrote(True)
  meta = {"key": record["key"], "place": i}
  return Trace(Problem(asked, "", meta), learned, 0, "stop")


def _sifted(
  config: Config, inputs: dict[str, Any], records: list[Row]
) -> tuple[list[Trace], list[gates.Dropped], list[dict[str, Any]]]:
  """Returns what passes the gates, what does not, and the counts."""
  about = gates.About(
    None,
    settings.load_tokenizer(config.run),
    config.run.seed,
    held_out.texts(config.held_out, inputs, config.run.seed),
  )
  chosen = sieve.named(config.gates, about, inputs)
  return gates.run([_trace(i, r) for i, r in enumerate(records)], chosen)


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes corpus.jsonl, and dropped.jsonl with each record's gate and reason.

  Returns the counts at each gate, lines of a file that were not used or not in
  full by reason, and how many bytes of text there are to learn.

  Raises:
    ValueError: nothing is left.
  """
  records, faults = _read(config, inputs)
  random.Random(f"corpus/{config.run.seed}").shuffle(records)
  records = [_formed(r, config.form) for r in records[: config.count]]
  kept, dropped, counts = _sifted(config, inputs, records)
  whole = [records[trace.problem.meta["place"]] for trace in kept]
  refused = [
    {**records[trace.problem.meta["place"]], "gate": gate}
    | {"reason": why.name, "detail": why.detail}
    for trace, gate, why in dropped
  ]
  files.write_lines(workdir / "corpus.jsonl", whole)
  files.write_lines(workdir / "dropped.jsonl", refused)
  if not kept:
    raise ValueError(
      f"{workdir.name}: no record is left of {len(records)}; lines not used: "
      f"{faults}; counts: {counts}"
    )
  learned = sum(len(str(trace.text).encode()) for trace in kept)
  told = {"kept": len(kept), "bytes": learned}
  summary = {f"{workdir.name}_{name}": value for name, value in told.items()}
  summary |= {f"{workdir.name}_dropped": len(dropped)} if dropped else {}
  return told | {"gates": counts, "faults": faults, "summary": summary}
