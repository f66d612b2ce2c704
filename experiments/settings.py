"""A config becomes frozen dataclasses here, checked, and goes no further."""

import dataclasses
import hashlib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax

from experiments.resolve import resolve
from research.data import text
from research.models import presets, transformer
from research.models.config import Model


class Address(str):
  """A dotted address; that something is there is checked when it is read."""


class Stage(str):
  """The name of a stage that has run before; the plan checks that it does."""


@dataclasses.dataclass(frozen=True)
class Mesh:
  """How many ways the devices split rows, parameters, heads and time."""

  data: int = 1
  fsdp: int = 1
  tensor: int = 1
  context: int = 1

  @property
  def size(self) -> int:
    """How many devices."""
    return self.data * self.fsdp * self.tensor * self.context


@dataclasses.dataclass(frozen=True)
class Run:
  """What all stages of a run share."""

  seed: int
  tokenizer: str
  model: Model
  mesh: Mesh

  def __post_init__(self):
    """Raises ValueError where the model of all stages has adapters."""
    if self.model.lora is not None:
      raise ValueError(
        "config.model.lora: adapters belong to a stage: set config.STAGE.lora"
      )


PROMPT = "{prompt}"


@dataclasses.dataclass(frozen=True)
class Problems:
  """A task's problems: its dotted address, a split and the task's own args.

  With `path` they are those of a JSONL file that a stage wrote, its folder
  `{stage}` at the head, and the task grades them. They are put as `ask` says,
  in which `{prompt}` is the task's own.
  """

  task: Address
  split: str
  args: dict[str, Any] = dataclasses.field(default_factory=dict)
  path: str | None = None
  ask: str = PROMPT

  def __post_init__(self):
    """Raises ValueError on what asks nothing."""
    if PROMPT not in self.ask:
      raise ValueError(f"{self.task}: {self.ask!r} has no {PROMPT} to ask")


@dataclasses.dataclass(frozen=True)
class Plugin:
  """A module by dotted address, and the arguments it is called with."""

  name: Address
  args: dict[str, Any] = dataclasses.field(default_factory=dict)


def _wrong(where: str, value: Any, wanted: Any) -> ValueError:
  name = getattr(wanted, "__name__", str(wanted))
  return ValueError(
    f"config.{where} is {value!r}, a {type(value).__name__}; {name} is wanted"
  )


def _scalar(kind: type, value: Any, where: str) -> Any:
  if kind is float and type(value) is int:
    return float(value)
  plain = str if issubclass(kind, str) else kind
  if type(value) is not plain:  # a bool is no int here
    raise _wrong(where, value, plain)
  if kind is Address:
    try:
      resolve(value)
    except ValueError as error:
      raise ValueError(f"config.{where}: {error}") from error
  return kind(value)


def _model(value: Mapping[str, Any], where: str) -> Model:
  """Builds a published decoder with changes; presets name what is unknown."""
  if "preset" not in value:
    raise ValueError(f"config.{where}.preset is missing")
  hints = {**typing.get_type_hints(Model), "preset": str}
  known = [name for name in value if name in hints]
  built = {n: build(hints[n], value[n], f"{where}.{n}") for n in known}
  return presets.make(**{**value, **built})


def _member(kind: Any, value: Any, where: str) -> Any:
  """Builds a value of a Union, a Literal, a tuple or a dict type."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    if value is None and type(None) in args:
      return None
    rest = [a for a in args if a is not type(None)]
    return build(rest[0], value, where)
  if origin is Literal:
    if not any(type(value) is type(a) and value == a for a in args):
      raise _wrong(where, value, f"one of {args}")
    return value
  if origin is dict and isinstance(value, Mapping):
    return {k: build(args[1], v, f"{where}.{k}") for k, v in value.items()}
  if origin is not tuple or not isinstance(value, tuple | list):
    raise _wrong(where, value, kind)
  return tuple(build(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))


def build(kind: Any, value: Any, where: str = "") -> Any:
  """Returns `value` as an instance of `kind`, a dataclass or a plain type.

  Raises:
    ValueError: a field is unknown, missing or of a wrong type; names it.
  """
  if kind is Any:
    return value
  if kind is Model and isinstance(value, Mapping):
    return _model(value, where)
  if not dataclasses.is_dataclass(kind):
    if typing.get_origin(kind) is None:
      return _scalar(kind, value, where)
    return _member(kind, value, where)
  if isinstance(value, kind):  # type: ignore[arg-type]
    return value
  if not isinstance(value, Mapping):
    raise _wrong(where, value, kind)
  fields = {f.name: f for f in dataclasses.fields(kind)}
  at = lambda name: f"{where}.{name}" if where else name
  if unknown := sorted(set(value) - set(fields)):
    raise ValueError(
      f"config.{at(unknown[0])} is unknown; {where or 'the config'} has "
      f"{', '.join(sorted(fields))}"
    )
  needed = [
    name
    for name, f in fields.items()
    if f.default is f.default_factory is dataclasses.MISSING
  ]
  if missing := [name for name in needed if name not in value]:
    raise ValueError(f"config.{at(missing[0])} is missing")
  hints = typing.get_type_hints(kind)
  return kind(**{n: build(hints[n], v, at(n)) for n, v in value.items()})


def key(run: Run, purpose: str) -> jax.Array:
  """Returns the root key of one purpose, such as a stage's name.

  Purposes are hashed, so that no two consumers of a run share a key.
  """
  data = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
  return jax.random.fold_in(jax.random.key(run.seed), data)


def load_tokenizer(run: Run) -> text.Tokenizer:
  """Returns the run's tokenizer.

  Raises:
    ValueError: the model's vocabulary is too small for it.
  """
  tokenizer = text.load_tokenizer(run.tokenizer)
  if tokenizer.size > run.model.vocab:
    raise ValueError(
      f"the tokenizer {tokenizer.name!r} has {tokenizer.size} tokens and the "
      f"model {run.model.vocab} rows: raise config.model.vocab"
    )
  return tokenizer


def check_prefix(prefix: str) -> None:
  """Raises ValueError unless it is "" or a name and a slash."""
  if not re.fullmatch(r"([\w.-]+/)?", prefix):
    raise ValueError(f"the prefix {prefix!r} is no name and a slash")


def check_pairs(
  pairs: Iterable[Sequence[str]], compared: Sequence[str]
) -> None:
  """Raises ValueError where a pair is not two of what is compared."""
  for pair in pairs:
    if len(pair) != 2 or not set(pair) <= set(compared):
      raise ValueError(f"the pair {pair} is not two of {compared}")


def describe(run: Run) -> str:
  """Returns one line on the model."""
  model = run.model
  return (
    f"{transformer.count(model) / 1e6:.2f} M parameters: {model.layers} layers "
    f"of width {model.width}, {model.kv_heads}x{model.groups} heads of "
    f"{model.head_dim}, mlp {model.mlp}, vocabulary {model.vocab}, "
    f"context {model.context}, {model.dtype}"
  )
