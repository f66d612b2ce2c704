"""A teacher writes traces; what its task does not find correct is not kept."""

import dataclasses
import json
import pathlib
from typing import Any

from rich import progress

from experiments import pools
from experiments.resolve import resolve
from experiments.settings import Address, Problems, Run
from research.training.metrics import replace_file


@dataclasses.dataclass(frozen=True)
class Config:
  """How many problems to annotate, and who writes (a `write` function)."""

  run: Run
  problems: Problems
  count: int
  teacher: Address

  def __post_init__(self):
    """Raises ValueError where nothing would be written."""
    if self.count < 1:
      raise ValueError(f"annotate: count is {self.count}; at least 1 is wanted")


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes traces.jsonl, and answers.jsonl: the same problems, answers alone.

  Returns how many traces were kept and how many rejected.
  """
  del inputs
  task = resolve(config.problems.task)
  problems = pools.pool(config.problems, config.count, config.run.seed)
  teacher = resolve(config.teacher)
  written = teacher.write(task, problems, None, config.run.seed)
  traces, answers, rejected = [], [], 0
  watched = progress.track(written, workdir.name.rjust(12), len(problems))
  for trace in watched:
    about = {"prompt": trace.problem.prompt, "key": trace.problem.meta["key"]}
    traces.append(about | {"completion": trace.text})
    answer = task.answer_text(trace.problem)
    answers.append(about | {"completion": answer})
    rejected = trace.rejected
  for name, rows in (("traces", traces), ("answers", answers)):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    replace_file(workdir / f"{name}.jsonl", lines.encode())
  return {"kept": len(traces), "rejected": rejected}
