"""Retrieved passages before the prompts of a corpus, for a student to read."""

import dataclasses
import pathlib
from typing import Any

from experiments import files, retrieval
from experiments.retrieval import Asked, Retrieval
from experiments.settings import Run
from research.data import jsonl
from research.evaluation import intervals
from research.grading import extract
from research.knowledge import retrieve


@dataclasses.dataclass(frozen=True)
class Config:
  """`corpus` is a JSONL file of prompts and completions, their rationales.

  `{stage}` in its path stands for that stage's folder.
  """

  run: Run
  corpus: str
  passages: Retrieval


def read(path: str, inputs: dict[str, Any]) -> list[Asked]:
  """Returns the questions of a corpus, in its order.

  Raises:
    ValueError: a record is a conversation, whose question is not told apart.
  """
  asked = []
  for number, record in enumerate(jsonl.read(files.located(path, inputs)), 1):
    if "completion" not in record:
      raise ValueError(
        f"{path}, record {number}: passages go before a `prompt` with a "
        f"`completion`; it has {sorted(record)}"
      )
    rationale = record["completion"]
    key = f"{number}/{record['prompt']}"
    answer = extract.strict(rationale) or rationale
    asked.append(Asked(key, record["prompt"], rationale, answer))
  return asked


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes traces.jsonl: the same completions, behind passages.

  Returns how many, and in the summary how much of what a rationale quotes was
  found, and how often a passage holds the answer.
  """
  asked = read(config.corpus, inputs)
  found = retrieval.find(config, config.passages, inputs, asked)
  rows = [
    {"prompt": retrieve.before(p, a.question), "completion": a.rationale}
    for a, p in zip(asked, found, strict=True)
  ]
  files.write_lines(workdir / "traces.jsonl", rows)
  told = {
    a.key: float(retrieve.holds(p, a.answer))
    for a, p in zip(asked, found, strict=True)
  }
  recalls = retrieval.recalls(config.passages, asked, found)
  values = {f"recall@{config.passages.count}": recalls, "answer_told": told}
  seed = config.run.seed
  summary = {
    f"{workdir.name}/{name}": intervals.bootstrap(x, seed=seed)
    for name, x in values.items()
    if x
  }
  return {"records": len(rows), "summary": summary}
