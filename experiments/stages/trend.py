"""What stages of training said of their last steps, as figures of the run."""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from experiments import settings, student
from experiments.settings import Run, Stage


@dataclasses.dataclass(frozen=True)
class Config:
  """Of each of `stages`, each of `metrics` as a mean over the `last` steps.

  Steps that do not have a metric are left out of its mean. Names of the summary
  begin with `prefix`, "" or "name/".
  """

  run: Run
  stages: tuple[Stage, ...]
  metrics: tuple[str, ...]
  last: int
  prefix: str = ""

  def __post_init__(self):
    """Raises ValueError on no steps."""
    if self.last < 1:
      raise ValueError(f"trend: last is {self.last}; at least 1 is wanted")
    settings.check_prefix(self.prefix)


def _steps(folder: str) -> list[dict[str, float]]:
  path = pathlib.Path(folder) / "metrics.jsonl"
  if not path.exists():
    raise ValueError(f"{path}: no such file; trend reads stages that train")
  return [json.loads(line) for line in path.read_text().splitlines()]


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns the figures; a stage's own seed is the only sample of each.

  Raises:
    ValueError: a stage did not train, or never told such a metric.
  """
  del workdir
  found = {}
  for stage in config.stages:
    told = _steps(student.outputs(inputs, stage)["folder"])[-config.last :]
    for metric in config.metrics:
      values = [step[metric] for step in told if metric in step]
      if not values:
        names = ", ".join(sorted({name for step in told for name in step}))
        raise ValueError(
          f"trend: {stage} has no metric {metric!r} in its last steps; there "
          f"are {names}"
        )
      found[f"{config.prefix}{stage}/{metric}"] = statistics.fmean(values)
  return {"summary": found}
