"""What a run left on disk, read back for its report.

  DIR/summary.json            flat: name -> number or {mean, low, high, n}
  DIR/STAGE/metrics.jsonl     {"step": int, "loss": ..., ...} a line
  DIR/STAGE/rollouts/*.jsonl  {"step", "prompt", "completion", "reward",
  DIR/STAGE/samples/*.jsonl    "verdict", "tokens", "group", ...} a line

Every stage, file and key is optional: a report shows what there is.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDERS = ("rollouts", "samples")


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage's logged metrics, one dict a step, and its samples."""

  name: str
  metrics: list[dict[str, Any]]
  samples: list[dict[str, Any]]


def summary(workdir: Path) -> dict[str, Any]:
  """The run's summary, empty where it was not written."""
  path = workdir / "summary.json"
  if not path.exists():
    return {}
  return json.loads(path.read_text())


def stages(workdir: Path, order: Sequence[str] = ()) -> list[Stage]:
  """Every folder of `workdir` that logged something.

  Those named in `order` come first, in that order, then the others by name.
  Raises FileNotFoundError where the workdir is missing, and ValueError, naming
  file and line, where a line is not a JSON object.
  """
  if not workdir.is_dir():
    raise FileNotFoundError(f"no workdir {workdir}; run an experiment first")
  names = [path.name for path in workdir.iterdir() if path.is_dir()]
  rank = {name: at for at, name in enumerate(order)}
  names.sort(key=lambda name: (rank.get(name, len(rank)), _natural(name)))
  found = [_stage(workdir / name) for name in names]
  return [stage for stage in found if stage.metrics or stage.samples]


def _stage(folder: Path) -> Stage:
  files = [path for name in FOLDERS for path in _files(folder / name)]
  samples = [record for path in files for record in _lines(path)]
  return Stage(folder.name, _metrics(folder / "metrics.jsonl"), samples)


def _files(folder: Path) -> list[Path]:
  return sorted(folder.glob("*.jsonl"), key=lambda path: _natural(path.name))


def _metrics(path: Path) -> list[dict[str, Any]]:
  # A resumed run logs some steps twice, and a step's evaluation may have its
  # own line: lines of one step are merged, the later one wins.
  steps: dict[float, dict[str, Any]] = {}
  for record in _lines(path) if path.exists() else ():
    if "step" in record:
      steps.setdefault(record["step"], {}).update(record)
  return [steps[step] for step in sorted(steps)]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
  with path.open(encoding="utf-8") as lines:
    for number, line in enumerate(lines, 1):
      if line.strip():
        yield _object(path, number, line)


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except json.JSONDecodeError as error:
    raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
  if not isinstance(record, dict):
    raise ValueError(f"{path}, line {number}: not a JSON object")
  return record


def _natural(name: str) -> list[tuple[int, str]]:
  parts = re.findall(r"\d+|\D+", name)
  return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]
