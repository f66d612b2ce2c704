"""Wrong attempts become lessons for a critic: what is wrong, what is right."""

import dataclasses
import pathlib
from typing import Any

from experiments import files, pools
from experiments.resolve import resolve
from experiments.settings import Problems, Run
from research.annotation import critique
from research.data import jsonl
from research.types import Trace


@dataclasses.dataclass(frozen=True)
class Config:
  """`attempts` is a JSONL file at the first `count` of `problems`, by key.

  `{stage}` at its head stands for that stage's folder. The task has a
  `first_error` beside its `trace`.
  """

  run: Run
  problems: Problems
  count: int
  attempts: str


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes lessons.jsonl; returns how many attempts there were, how many wrong.

  Raises:
    ValueError: an attempt is at another problem, or none is wrong.
  """
  task = resolve(config.problems.task)
  problems = pools.by_key(
    config.problems, config.count, config.run.seed, inputs
  )
  records = jsonl.read(files.located(config.attempts, inputs))
  taught = []
  for record in records:
    if record.get("key") not in problems:
      raise ValueError(
        f"{config.attempts}: {record.get('key')!r} is none of the "
        f"{len(problems)} problems: set problems and count as where they "
        "were attempted"
      )
    problem = problems[record["key"]]
    attempt = Trace(problem, record["completion"], 0, "stop")
    taught.append(critique.lessons(task, attempt))
  rows = [{"messages": said} for lessons in taught for said in lessons]
  if not rows:
    raise ValueError(f"{config.attempts}: none of {len(records)} is wrong")
  files.write_lines(workdir / "lessons.jsonl", rows)
  return {"attempts": len(records), "wrong": sum(map(bool, taught))}
