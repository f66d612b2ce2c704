"""What all training stages share: where a student begins, and how it trains."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments import loop, settings
from experiments.resolve import resolve
from research import sharding
from research.data import text
from research.models import (
  hf_files,
  huggingface,
  lora,
  peft,
  quantize,
  transformer,
)
from research.models.config import Lora, Model
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Dense, Sampled, TrainState, Written


def make_mesh(config: Any) -> Mesh:
  """Returns the mesh of a stage's run."""
  return sharding.make_mesh(**dataclasses.asdict(config.run.mesh))


def check(config: Any) -> None:
  """Raises ValueError on adapters over nothing, and bits of no base."""
  if config.lora is not None and config.start is None:
    raise ValueError(
      "lora: adapters are trained over parameters that are there: name their "
      "stage in start"
    )
  if config.lora is None and config.base_bits is not None:
    raise ValueError(
      "base_bits: every parameter is trained here, and what is quantised "
      "cannot be: set lora as well"
    )


def check_rows(config: Any, rows: int, length: int) -> None:
  """Raises ValueError on a step that cannot be cut, or rows too long."""
  if config.microbatches < 1 or rows % config.microbatches:
    raise ValueError(
      f"{rows} rows cannot be cut into {config.microbatches} microbatches"
    )
  check_length(config, length)


def check_length(config: Any, length: int) -> None:
  """Raises ValueError on rows that the model cannot read."""
  if length > config.run.model.context:
    raise ValueError(
      f"rows of {length} tokens are longer than the model's context of "
      f"{config.run.model.context}: lower length or raise config.model.context"
    )


def check_heard(loss: settings.Plugin) -> None:
  """Raises ValueError on a loss that hears no teacher's distribution."""
  heard = objectives.listens_to(resolve(loss.name).loss)
  if heard not in (Dense, Written, Sampled):
    raise ValueError(
      f"{loss.name} hears {heard.__name__}, and there is a teacher's "
      "distribution: take such as research.losses.forward_kl"
    )


def decoder(config: Any) -> Model:
  """Returns the decoder that a stage trains, its adapters included."""
  return dataclasses.replace(config.run.model, lora=config.lora)


def params(config: Any, state: TrainState) -> Any:
  """Returns all parameters of that decoder in a state of its training."""
  if config.lora is None:
    return state.params
  return lora.join(state.frozen[0], state.params)


def adapters(config: Any) -> dict[str, Any]:
  """Returns what a stage's outputs say of its adapters, for `load`."""
  if config.lora is None:
    return {}
  over = {"start": config.start, "base_bits": config.base_bits}
  return {"adapters": {"lora": dataclasses.asdict(config.lora), **over}}


def outputs(inputs: dict[str, Any], stage: str) -> dict[str, Any]:
  """Returns what `stage` told; ValueError where it has not run."""
  if stage not in inputs:
    raise ValueError(
      f"no stage {stage!r} has run before this one; there are {list(inputs)}"
    )
  return inputs[stage]


def checkpoint(directory: pathlib.Path) -> dict[str, str]:
  """Returns what a stage's outputs say of a checkpoint, for `load`."""
  mark = hf_files.fingerprint(directory)
  return {"checkpoint": str(directory), "fingerprint": mark}


def _directory(done: dict[str, Any]) -> str:
  """Returns a stage's checkpoint; ValueError where it is another by now."""
  directory = done["checkpoint"]
  if checkpoint(pathlib.Path(directory))["fingerprint"] != done["fingerprint"]:
    raise ValueError(
      f"{directory} has changed since this run first read it: put back what "
      "was there, or use another --workdir"
    )
  return directory


def check_same(asked: Model, found: Model, directory: str) -> None:
  """Raises ValueError naming what a checkpoint has otherwise than the run."""
  free = ("context", "dtype", "remat")  # what a run may choose
  wanted = dataclasses.asdict(asked)
  differing = [
    f"{name} is {value!r} there and {wanted[name]!r} in config.model"
    for name, value in dataclasses.asdict(found).items()
    if value != wanted[name] and name not in free
  ]
  if differing:
    raise ValueError(f"{directory} is another model: {'; '.join(differing)}")


def load(
  config: Any,
  inputs: dict[str, Any],
  stage: str,
  mesh: Mesh,
  *,
  dtype: Any = jnp.float32,
) -> Any:
  """Returns the parameters that `stage` ended with, fp32 and sharded.

  Adapters are merged into the base that they were trained over. What comes
  from a checkpoint has `dtype`, or with None the file's own.

  Raises:
    ValueError: no such stage has run before this one, or it is a checkpoint of
      another model or tokenizer than the run's, or has changed since.
    FileNotFoundError: it trained nothing.
  """
  done, model = outputs(inputs, stage), config.run.model
  if "checkpoint" in done:
    directory = _directory(done)
    found, params = huggingface.load(directory, mesh=mesh, dtype=dtype)
    check_same(model, found, directory)
    if (pathlib.Path(directory) / "tokenizer.json").is_file():
      theirs = text.load_tokenizer(directory)
      text.shared_rows(theirs, settings.load_tokenizer(config.run))
    return params
  path = pathlib.Path(done["folder"]) / "checkpoints"
  if "adapters" not in done:
    return loop.load_params(path, model, mesh)
  over = done["adapters"]
  base = load(config, inputs, over["start"], mesh)
  base = _quantised(model, base, over["base_bits"], mesh)
  adapted = dataclasses.replace(
    model, lora=settings.build(Lora, over["lora"], f"{stage}.lora")
  )
  joined = lora.join(base, loop.load_params(path, adapted, mesh))
  return lora.merge(adapted, joined)[1]


def read_only(
  config: Any, inputs: dict[str, Any], stage: str, bits: int | None, mesh: Mesh
) -> Any:
  """Returns a stage's parameters in the compute dtype, or in `bits`.

  A checkpoint's are never held in fp32 on their way.
  """
  model = config.run.model
  dtype = model.dtype if bits is None else None  # bits are cut from the file's
  params = load(config, inputs, stage, mesh, dtype=dtype)
  return _frozen(model, params, bits, mesh)


def _frozen(model: Model, params: Any, bits: int | None, mesh: Mesh) -> Any:
  """Returns parameters to be read only: in the compute dtype, or in `bits`."""
  params = _quantised(model, params, bits, mesh)
  return transformer.in_compute_dtype(model, params)


def teacher(
  config: Any, inputs: dict[str, Any], mesh: Mesh, stage: str
) -> tuple[Model, Any, int]:
  """Returns (model, params, tokens) of a stage's model, to be read only.

  A checkpoint's model is its own, and `tokens` the first ids that it shares
  with the student's; any other stage's is the run's, and they share all.

  Raises:
    ValueError: no such stage has run; a checkpoint's tokenizer is another one.
    FileNotFoundError: a checkpoint has no tokenizer to compare.
  """
  if "checkpoint" not in outputs(inputs, stage):
    params = read_only(config, inputs, stage, config.teacher_bits, mesh)
    return config.run.model, params, config.run.model.vocab
  own = settings.load_tokenizer(config.run)
  shared = text.shared_rows(their_tokenizer(inputs, stage), own)
  model, params = foreign(config, inputs, mesh, stage)
  return model, params, min(shared, model.vocab, config.run.model.vocab)


def their_tokenizer(inputs: dict[str, Any], stage: str) -> text.Tokenizer:
  """Returns a checkpoint's own tokenizer; ValueError where it is none."""
  done = outputs(inputs, stage)
  if "checkpoint" not in done:
    raise ValueError(
      f"the stage {stage!r} is no checkpoint, and speaks the student's tokens"
    )
  return text.load_tokenizer(_directory(done))


def foreign(
  config: Any, inputs: dict[str, Any], mesh: Mesh, stage: str
) -> tuple[Model, Any]:
  """Returns a checkpoint's own model and its parameters, to be read only."""
  done = outputs(inputs, stage)
  model, params = huggingface.load(done["checkpoint"], mesh=mesh)
  return model, _frozen(model, params, config.teacher_bits, mesh)


def _quantised(model: Model, params: Any, bits: int | None, mesh: Mesh) -> Any:
  if bits is None:
    return params
  boxed = quantize.abstract(transformer.abstract(model), bits)
  placed = sharding.of_parameters(boxed, mesh)
  narrow = functools.partial(quantize.quantize, bits=bits)
  return jax.jit(narrow, out_shardings=placed)(params)


def _first_state(
  config: Any,
  inputs: dict[str, Any],
  optimizer: Any,
  mesh: Mesh,
  name: str,
  extra: Callable[[Any], Any],
) -> tuple[Callable[[], TrainState], Any]:
  """Returns (make, abstract) of the state that the stage `name` begins with.

  `config.start` names the stage whose parameters it begins from, or is None.
  Adapters begin anew; what they begin from is frozen.
  """
  model = decoder(config)
  draw, later = jax.random.split(settings.key(config.run, name))

  def first() -> TrainState:
    drawn = lora.trained(model, transformer.init(model, draw))
    state = steps.new_state(drawn, optimizer, later)
    return dataclasses.replace(state, extra=extra(drawn))

  fresh, abstract = loop.begin(model, mesh, first)
  if config.start is None or config.lora is not None:
    return fresh, abstract
  placed = jax.tree.map(lambda x: x.sharding, abstract.extra)

  def begun() -> TrainState:
    params = load(config, inputs, config.start, mesh)
    beside = jax.jit(extra, out_shardings=placed)(params)
    return dataclasses.replace(fresh(), params=params, extra=beside)

  return begun, abstract


def compiled(
  config: Any,
  how: optimizers.Optimizer,
  objective: steps.Objective,
  updates: int = 1,
) -> tuple[optax.GradientTransformation, steps.Step]:
  """Returns the optimizer of a stage's run, and the step that goes by it."""
  optimizer = optimizers.make(how, config.loop.steps, updates)
  parts = config.microbatches
  step = steps.compiled(objective, optimizer, clip=how.clip, microbatches=parts)
  return optimizer, step


def train(
  config: Any,
  inputs: dict[str, Any],
  workdir: pathlib.Path,
  objective: steps.Objective,
  draw: loop.Draw,
  *,
  position: loop.Position | None = None,
  frozen: Any = None,
  extra: Callable[[Any], Any] = lambda params: None,
  updates: int = 1,
  around: Callable[[steps.Step], steps.Step] = lambda step: step,
) -> TrainState:
  """Trains the student of a stage's config on what `draw` gives; see `fit`.

  `extra` makes what a state holds beside the parameters out of the first ones.
  A step may have several `updates`: `around` makes it of one. Adapters are
  saved without their base, and at the end in PEFT's format too.
  """
  mesh = make_mesh(config)
  if config.lora is not None:
    base = read_only(config, inputs, config.start, config.base_bits, mesh)
    objective, frozen = lora.over(objective), (base, frozen)
  optimizer, step = compiled(config, config.optimizer, objective, updates)
  name = workdir.name
  state = loop.fit(
    config.loop,
    workdir,
    *_first_state(config, inputs, optimizer, mesh, name, extra),
    around(step),
    draw,
    position=position,
    frozen=frozen,
    config=dataclasses.asdict(config),
  )
  if config.lora is not None:
    _hand_over(config, inputs, workdir / "peft", state)
  return state


def _hand_over(
  config: Any, inputs: dict[str, Any], folder: pathlib.Path, state: TrainState
) -> None:
  """Writes the adapters for others; a resumed run may find them written."""
  name = inputs[config.start].get("checkpoint")
  if not folder.exists():
    peft.save(folder, decoder(config), state.params, base_name=name)
