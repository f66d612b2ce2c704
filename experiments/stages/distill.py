"""Distillation on written text: a Batch at a time, any loss on hard targets."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from experiments import loop, settings
from experiments.resolve import resolve
from experiments.settings import Plugin, Run, Stage
from research import sharding
from research.data import jsonl, text
from research.data.loader import Loader
from research.models import transformer
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A JSONL file; `{stage}` in its path stands for that stage's folder."""

  path: str
  weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Config:
  """A step is `rows` rows of `length` tokens, read from `shards` shards.

  `start` names a stage to begin from instead of fresh parameters; `teacher`
  one whose model speaks beside the student, for losses on its distribution.
  """

  run: Run
  corpora: tuple[Corpus, ...]
  loss: Plugin
  rows: int
  length: int
  shards: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1
  start: Stage | None = None
  teacher: Stage | None = None


class Text:
  """Packed batches of text, as a source of the loop."""

  def __init__(self, loader: Loader, mesh: Any):
    """Wraps a loader of this host's rows."""
    self._loader, self._mesh = loader, mesh

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns the next batch, how much of it is not padding, and how many
    examples were too long for a row so far.
    """
    del state, step
    batch = next(self._loader)
    real = float((batch.segments_BT > 0).sum())
    seen = {
      "fill": (real, float(batch.tokens_BT.size)),
      "learned_tokens": (float(batch.weights_BT.sum()), 1.0),
      "too_long": (float(self._loader.rejected), 1.0),
    }
    return sharding.place(batch, self._mesh), seen

  def state(self) -> Any:
    """Returns the loader's position."""
    return self._loader.state()

  def restore(self, state: Any) -> None:
    """Goes back to a position."""
    self._loader.restore(state)


def _located(path: str, inputs: dict[str, Any]) -> str:
  folders = {name: done["folder"] for name, done in inputs.items()}
  try:
    return path.format(**folders)
  except (KeyError, IndexError, ValueError) as error:
    raise ValueError(
      f"the corpus {path!r} names no stage that has run: {list(folders)}"
    ) from error


def _loader(config: Config, inputs: dict[str, Any]) -> Loader:
  tokenizer = settings.load_tokenizer(config.run)
  sources = [jsonl.read(_located(c.path, inputs)) for c in config.corpora]
  return Loader(
    sources,
    functools.partial(text.example, tokenizer),
    length=config.length,
    rows=config.rows,
    shards=config.shards,
    seed=config.run.seed,
    pad=tokenizer.pad,
    weights=[c.weight for c in config.corpora],
    host=jax.process_index(),
    hosts=jax.process_count(),
  )


def first_state(
  config: Any, inputs: dict[str, Any], optimizer: Any, mesh: Any, name: str
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
  path = checkpoints(inputs, config.start)
  begun = lambda: dataclasses.replace(
    fresh(), params=loop.load_params(path, model, mesh)
  )
  return begun, abstract


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the student; returns how many tokens its rows had room for."""
  model, mesh = (
    config.run.model,
    sharding.make_mesh(**dataclasses.asdict(config.run.mesh)),
  )
  if config.length > model.context:
    raise ValueError(
      f"rows of {config.length} tokens are longer than the model's context "
      f"of {model.context}: lower length or raise config.model.context"
    )
  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  optimizer = optimizers.make(config.optimizer)
  objective, frozen = objectives.imitation(model, loss, mesh), None
  if config.teacher is not None:
    frozen = loop.load_params(checkpoints(inputs, config.teacher), model, mesh)
    objective = objectives.matching(model, model, loss, mesh)
  fresh, abstract = first_state(config, inputs, optimizer, mesh, workdir.name)
  loop.fit(
    config.loop,
    workdir,
    fresh,
    abstract,
    steps.compiled(
      objective,
      optimizer,
      clip=config.optimizer.clip,
      microbatches=config.microbatches,
    ),
    Text(_loader(config, inputs), mesh),
    frozen=frozen,
    config=dataclasses.asdict(config),
  )
  return {"capacity": config.loop.steps * config.rows * config.length}


def checkpoints(inputs: dict[str, Any], stage: str) -> pathlib.Path:
  """Returns where a stage's checkpoints lie.

  Raises:
    ValueError: no such stage has run before this one.
  """
  if stage not in inputs:
    raise ValueError(
      f"no stage {stage!r} has run before this one; there are {list(inputs)}"
    )
  return pathlib.Path(inputs[stage]["folder"]) / "checkpoints"
