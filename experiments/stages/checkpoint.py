"""A checkpoint directory of transformers, for other stages to start from."""

import dataclasses
import pathlib
from typing import Any

from experiments import student
from experiments.settings import Run
from research.models import huggingface


@dataclasses.dataclass(frozen=True)
class Config:
  """`directory` holds a config.json and safetensors."""

  run: Run
  directory: str


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Reads the checkpoint whole, to find now what is wrong with it.

  Returns where it lies: nothing is copied, so it has to stay there, and a
  fingerprint, by which stages that read it later see that it is the same.

  Raises:
    ValueError: it is damaged; says how.
  """
  del inputs, workdir
  directory = pathlib.Path(config.directory).absolute()
  huggingface.load(directory, mesh=student.make_mesh(config))
  return student.checkpoint(directory)
