"""What all training stages share: where a student begins, and how it trains."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from experiments import loop, settings
from research import sharding
from research.models import transformer
from research.training import optimizers
from research.training import step as steps
from research.types import TrainState


def make_mesh(config: Any) -> Mesh:
  """Returns the mesh of a stage's run."""
  return sharding.make_mesh(**dataclasses.asdict(config.run.mesh))


def load(config: Any, inputs: dict[str, Any], stage: str, mesh: Mesh) -> Any:
  """Returns the parameters that `stage` ended with, sharded.

  Raises:
    ValueError: no such stage has run before this one.
    FileNotFoundError: it trained nothing.
  """
  if stage not in inputs:
    raise ValueError(
      f"no stage {stage!r} has run before this one; there are {list(inputs)}"
    )
  path = pathlib.Path(inputs[stage]["folder"]) / "checkpoints"
  return loop.load_params(path, config.run.model, mesh)


def _first_state(
  config: Any, inputs: dict[str, Any], optimizer: Any, mesh: Mesh, name: str
) -> tuple[Callable[[], TrainState], Any]:
  """Returns (make, abstract) of the state that the stage `name` begins with.

  `config.start` names the stage whose parameters it begins from, or is None.
  """
  model = config.run.model
  draw, later = jax.random.split(settings.key(config.run, name))
  fresh, abstract = loop.begin(
    model,
    mesh,
    lambda: steps.new_state(transformer.init(model, draw), optimizer, later),
  )
  if config.start is None:
    return fresh, abstract
  begun = lambda: dataclasses.replace(
    fresh(), params=load(config, inputs, config.start, mesh)
  )
  return begun, abstract


def train(
  config: Any,
  inputs: dict[str, Any],
  workdir: pathlib.Path,
  objective: steps.Objective,
  draw: loop.Draw,
  *,
  position: loop.Position | None = None,
  frozen: Any = None,
) -> TrainState:
  """Trains the student of a stage's config on what `draw` gives; see `fit`."""
  optimizer = optimizers.make(config.optimizer, config.loop.steps)
  fresh, abstract = _first_state(
    config, inputs, optimizer, make_mesh(config), workdir.name
  )
  step = steps.compiled(
    objective,
    optimizer,
    clip=config.optimizer.clip,
    microbatches=config.microbatches,
  )
  return loop.fit(
    config.loop,
    workdir,
    fresh,
    abstract,
    step,
    draw,
    position=position,
    frozen=frozen,
    config=dataclasses.asdict(config),
  )
