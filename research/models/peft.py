"""Adapters in PEFT's format: adapter_config.json, adapter_model.safetensors.

A is stored [rank, in] and B [out, rank], layer by layer, in the layouts of the
matrices that they adapt.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from research import sharding
from research.models import hf_files, huggingface, lora, transformer
from research.models.config import ADAPTER, MATRICES, TARGETS, Lora, Model
from research.models.hf_files import Item, Stored

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_ROOT = "base_model.model."
_PROJECTION = "_proj"  # what PEFT's name of a target has behind ours
# What adapters say beside their numbers, or what matters to training only; all
# else has to be absent, empty or off: it would be another function.
_HARMLESS = {
  "auto_mapping",
  "base_model_name_or_path",
  "inference_mode",
  "lora_alpha",
  "lora_dropout",
  "peft_type",
  "peft_version",
  "r",
  "revision",
  "target_modules",
  "task_type",
  "use_rslora",
}
_SAME = {
  "bias": ("none",),
  "init_lora_weights": (True, False, "gaussian"),  # others change the base
  "megatron_core": ("megatron.core",),
  "qalora_group_size": (16,),
}


class Half(NamedTuple):
  """One of our adapter's two arrays, and the names of its layers' tensors."""

  path: tuple[str, ...]
  inputs: int
  shape: tuple[int, ...]
  names: tuple[str, ...]

  @property
  def matrix(self) -> tuple[int, int]:
    """The shape of a layer's tensor as it is stored."""
    one = self.shape[1:]
    return math.prod(one[self.inputs :]), math.prod(one[: self.inputs])


def halves(config: Model) -> list[Half]:
  """Returns where each adapter's A and B lie, here and in a file."""
  boxed = lora.split(transformer.abstract(config))[1]
  plain = dataclasses.replace(config, lora=None)
  stored = {leaf.path: leaf.names for leaf in huggingface.leaves(plain)}
  found = []
  for path, x in jax.tree_util.tree_leaves_with_path(nn.unbox(boxed)):
    *outer, adapter, half = (part.key for part in path)
    matrix = TARGETS[adapter.removesuffix(ADAPTER)]
    first = half.startswith("a_")
    behind = ".lora_A.weight" if first else ".lora_B.weight"
    names = tuple(
      _ROOT + name.removesuffix(".weight") + behind
      for name in stored[*outer, matrix]
    )
    inputs = len(MATRICES[matrix]) if first else 1
    found.append(Half((*outer, adapter, half), inputs, x.shape, names))
  return found


def save(
  directory: str | os.PathLike[str],
  config: Model,
  adapters: Any,
  *,
  base_name: str | None = None,
) -> None:
  """Writes a directory that `peft` and what reads its format load.

  `base_name` says which checkpoint the adapters belong to. The directory
  appears whole or not at all.

  Raises:
    FileExistsError: something is there already: nothing is overwritten.
    ValueError: the config has no LoRA.
  """
  if config.lora is None:
    raise ValueError("the model has no lora: there are no adapters to save")
  with hf_files.appearing(directory) as made:
    described = json.dumps(_described(config.lora, base_name), indent=2)
    (made / SETTINGS).write_text(described + "\n")
    items = sorted(_items(config, adapters), key=lambda item: item.name)
    hf_files.write(made, items, sum(item.size for item in items))
    (made / hf_files.SINGLE).rename(made / WEIGHTS)


def _described(adapters: Lora, base_name: str | None) -> dict[str, Any]:
  return {
    "base_model_name_or_path": base_name,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "lora_alpha": adapters.alpha,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": adapters.rank,
    "target_modules": [stem + _PROJECTION for stem in adapters.targets],
    "task_type": "CAUSAL_LM",
    "use_rslora": adapters.rslora,
  }


def _items(config: Model, adapters: Any) -> Iterator[Item]:
  for half in halves(config):
    value = functools.reduce(lambda tree, key: tree[key], half.path, adapters)
    for n, name in enumerate(half.names):
      fetch = functools.partial(_fetch, half, value, n)
      yield Item(name, np.dtype(value.dtype), half.matrix, fetch)


def _fetch(half: Half, value: jax.Array, n: int) -> np.ndarray:
  return np.asarray(value[n]).reshape(half.matrix[::-1]).T


def load(
  directory: str | os.PathLike[str], config: Model, *, mesh: Mesh | None = None
) -> tuple[Model, Any]:
  """Returns (config with its lora, adapters in fp32) of a PEFT directory.

  With a mesh each device holds its own part of them.

  Raises:
    FileNotFoundError: one of the two files is absent.
    ValueError: a file is damaged; the settings ask for what is no plain LoRA of
      a layer's matrices; a tensor is missing, one too many, of a wrong shape or
      not finite. Names file and tensor.
  """
  directory = pathlib.Path(directory)
  for name in (SETTINGS, WEIGHTS):
    if not (directory / name).is_file():
      raise FileNotFoundError(f"{directory / name} is not there")
  path = directory / SETTINGS
  try:
    settings = json.loads(path.read_text(encoding="utf-8"))
    config = dataclasses.replace(config, lora=_decoded(settings))
  except hf_files.DAMAGED as error:
    raise ValueError(f"{path}: {error}") from error
  adapters = _read(directory / WEIGHTS, config)
  if mesh is not None:
    boxed = lora.split(transformer.abstract(config))[1]
    adapters = jax.device_put(adapters, sharding.of_parameters(boxed, mesh))
  return config, adapters


def _decoded(settings: dict[str, Any]) -> Lora:
  """Returns the LoRA that the settings describe; refuses any other function."""
  if settings.get("peft_type") != "LORA":
    raise ValueError(f"peft_type is {settings.get('peft_type')!r}, not LORA")
  for name, value in settings.items():
    known = name in _HARMLESS or value in _SAME.get(name, (None, False))
    if not known and value not in ([], {}):
      raise ValueError(f"{name} is {value!r}, which Pith's LoRA has not")
  modules = settings["target_modules"]
  if not isinstance(modules, list):
    raise ValueError(f"target_modules is {modules!r}; a list is wanted")
  stems = {module: str(module).removesuffix(_PROJECTION) for module in modules}
  for module, stem in stems.items():
    if stem not in TARGETS or module == stem:
      known = ", ".join(stem + _PROJECTION for stem in TARGETS)
      raise ValueError(f"target_modules has {module!r}, none of {known}")
  targets = tuple(stem for stem in TARGETS if stem in stems.values())
  rank, alpha = settings["r"], settings["lora_alpha"]
  if type(rank) is not int or type(alpha) not in (int, float):
    raise ValueError(f"r is {rank!r} and lora_alpha {alpha!r}; no numbers")
  return Lora(rank, float(alpha), targets, bool(settings.get("use_rslora")))


def _read(path: pathlib.Path, config: Model) -> Any:
  """Returns the adapters of a file, each tensor looked at."""
  found = hf_files.header(path)
  wanted = halves(config)
  surplus = found.keys() - {name for half in wanted for name in half.names}
  if surplus:
    raise ValueError(f"{path}: {min(surplus)} is no part of this LoRA")
  adapters: dict[str, Any] = {}
  for half in wanted:
    layers = [_layer(path, half, name, found) for name in half.names]
    inner = adapters
    for key in half.path[:-1]:
      inner = inner.setdefault(key, {})
    inner[half.path[-1]] = jnp.asarray(np.stack(layers))
  return adapters


def _layer(
  path: pathlib.Path, half: Half, name: str, found: dict[str, Stored]
) -> np.ndarray:
  if name not in found:
    raise ValueError(f"{path} has no tensor {name}")
  if found[name].shape != half.matrix:
    raise ValueError(
      f"{path}: {name} is {found[name].shape}; the model and {SETTINGS} make "
      f"it {half.matrix}"
    )
  x = found[name].read().astype(np.float32)
  if not np.isfinite(x).all():
    raise ValueError(f"{path}: {name} holds NaN or infinity")
  return x.T.reshape(half.shape[1:])
