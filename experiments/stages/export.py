"""A student leaves: a checkpoint directory of transformers, for any program."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments import settings, student
from experiments.settings import Run, Stage
from research.data import hf_tokenizer
from research.models import huggingface


@dataclasses.dataclass(frozen=True)
class Config:
  """`student` names the stage whose parameters are written, as `dtype`."""

  run: Run
  student: Stage
  dtype: Literal["bfloat16", "float32"] = "bfloat16"

  def __post_init__(self):
    """Raises ValueError on a tokenizer that transformers would not find."""
    path = pathlib.Path(self.run.tokenizer)
    if path.is_file() and path.name != "tokenizer.json":
      raise ValueError(
        f"export: {path} would not be found beside the weights: give it the "
        "name tokenizer.json, and set config.tokenizer"
      )


@contextlib.contextmanager
def _tokenizer_files(run: Run) -> Iterator[pathlib.Path]:
  """Yields a folder of what transformers needs of the run's tokenizer."""
  if run.tokenizer != "bytes":
    path = pathlib.Path(run.tokenizer)
    yield path if path.is_dir() else path.parent
    return
  tokenizer = settings.load_tokenizer(run)
  with tempfile.TemporaryDirectory() as made:
    folder, tokens = pathlib.Path(made), tokenizer.tokens()
    hf_tokenizer.write_bytes(
      folder, tokens, end=tokenizer.end, pad=tokenizer.pad
    )
    yield folder


def _check_written(
  folder: pathlib.Path, config: Config, params: Any, mesh: Mesh
) -> None:
  """Raises ValueError where a folder holds something else than the student."""
  found, held = huggingface.load(folder, mesh=mesh)
  student.check_same(config.run.model, found, str(folder))
  same = lambda x, y: jnp.array_equal(x.astype(config.dtype), y)
  if not jax.tree.all(jax.tree.map(same, params, held)):
    raise ValueError(f"{folder} holds other numbers: move it away")


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes checkpoint/, adapters merged, with the tokenizer's files beside.

  The directory appears whole or not at all, and nothing is overwritten: a run
  that was killed behind it finds it. Later stages may name this one as they
  name a `checkpoint` stage; another run's `checkpoint` stage opens the folder.

  Raises:
    ValueError: something else is there already.
  """
  mesh, folder = student.make_mesh(config), workdir / "checkpoint"
  model, dtype = config.run.model, config.dtype
  params = student.load(config, inputs, config.student, mesh)
  if folder.exists():
    _check_written(folder, config, params, mesh)
  else:
    with _tokenizer_files(config.run) as source:
      huggingface.save(folder, model, params, source=source, dtype=dtype)
  return student.checkpoint(folder.absolute())
