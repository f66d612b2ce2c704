"""What a run is evaluated on, as texts that nothing is to be learned from."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from experiments import files, pools
from experiments.settings import Problems
from research.data import jsonl


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """What is not to be learned: `count` problems, or a field of a JSONL file."""

  problems: Problems | None = None
  count: int | None = None
  path: str | None = None
  field: str = "prompt"

  def __post_init__(self):
    """Raises ValueError where it is neither, or both."""
    if (self.problems is None) == (self.path is None):
      raise ValueError(f"{self}: either problems or a path is wanted")
    if (self.problems is None) != (self.count is None):
      raise ValueError(f"{self}: problems want a count, and a path none")


def texts(
  sets: Iterable[HeldOut], inputs: Mapping[str, Any], seed: int
) -> dict[str, list[str]]:
  """Returns the texts of each evaluation set, by a name of it.

  At the head of a path `{stage}` stands for that stage's folder.
  """
  found = {}
  for told in sets:
    if told.problems is not None:
      asked = pools.pool(told.problems, told.count or 0, seed, inputs)
      name = f"{told.problems.task.rpartition('.')[2]}/{told.problems.split}"
      said = [problem.prompt for problem in asked]
    else:
      name = files.located(str(told.path), inputs)
      lines = jsonl.lines(name)
      said = [jsonl.field(line, told.field, at) for at, line in lines]
    # Two sets may be of one split, with other arguments.
    found[f"{name} #{len(found)}" if name in found else name] = said
  return found
