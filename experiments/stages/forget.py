"""What students of a run gained and forgot, as a matrix and a picture."""

import dataclasses
import pathlib
from typing import Any

from experiments.settings import Run, Stage
from research.evaluation import forgetting


@dataclasses.dataclass(frozen=True)
class Config:
  """Each of `orders` is a line of training: every student began from the last.

  `columns` are "suite/metric" of stages before, in which all students stand,
  with a difference to the line's last student for each.
  """

  run: Run
  orders: tuple[tuple[Stage, ...], ...]
  columns: tuple[str, ...]

  def __post_init__(self):
    """Raises ValueError where nothing can be forgotten."""
    if not self.columns or not self.orders:
      raise ValueError("forget: orders and columns are wanted")
    for order in self.orders:
      if len(order) < 2 or len(set(order)) < len(order):
        raise ValueError(f"forget: {order} is no line of different students")


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Draws forgetting.png; returns suite/student/gain and .../forgetting.

  `student` is the last of its line, and the picture has each student once.
  """
  found: dict[str, Any] = {}
  for done in inputs.values():
    found |= done.get("summary", {})
  summary, compared = {}, {}
  for order in config.orders:
    told = forgetting.measure(found, order, config.columns)
    for column, values in told.items():
      name = forgetting.cell(column, order[-1])
      for kind in ("gain", "forgetting"):
        summary[f"{name}_{kind}"] = values[kind]
      compared[name] = values["best"]
  every = list(dict.fromkeys(name for order in config.orders for name in order))
  forgetting.draw(workdir / "forgetting.png", found, every, config.columns)
  return {"best": compared, "summary": summary}
