"""Checkpoints of transformers in and out: names, layouts, and nothing else.

A matrix is stored [out, in], ours begin with their input axes; layers are
stored one by one, ours are stacked on N. Tensors are read one at a time and go
straight to their devices; beside the parameters no more than two are held.
"""

import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding

from research import sharding
from research.models import hf_config, hf_files, quantize, transformer
from research.models.config import Model
from research.models.hf_files import Item, Stored

# How many of a leaf's first axes are its input; the others lie as they are.
_INPUTS = {
  "q_DKGH": 1,
  "k_DKH": 1,
  "v_DKH": 1,
  "o_KGHD": 3,
  "gate_DF": 1,
  "up_DF": 1,
  "down_FD": 1,
}
_NAMES = {
  "embed_VD": "embed_tokens.weight",
  "unembed_VD": "lm_head.weight",
  "final_norm/scale_D": "norm.weight",
  "attention_norm/scale_D": "input_layernorm.weight",
  "attention/q_DKGH": "self_attn.q_proj.weight",
  "attention/k_DKH": "self_attn.k_proj.weight",
  "attention/v_DKH": "self_attn.v_proj.weight",
  "attention/qbias_KGH": "self_attn.q_proj.bias",
  "attention/kbias_KH": "self_attn.k_proj.bias",
  "attention/vbias_KH": "self_attn.v_proj.bias",
  "attention/q_norm/scale_H": "self_attn.q_norm.weight",
  "attention/k_norm/scale_H": "self_attn.k_norm.weight",
  "attention/o_KGHD": "self_attn.o_proj.weight",
  "mlp_norm/scale_D": "post_attention_layernorm.weight",
  "mlp/gate_DF": "mlp.gate_proj.weight",
  "mlp/up_DF": "mlp.up_proj.weight",
  "mlp/down_FD": "mlp.down_proj.weight",
}
# Gemma 3 has a norm behind each sublayer, and so another name before the mlp.
_POST_NORMED = {
  "attention_post_norm/scale_D": "post_attention_layernorm.weight",
  "mlp_norm/scale_D": "pre_feedforward_layernorm.weight",
  "mlp_post_norm/scale_D": "post_feedforward_layernorm.weight",
}
_VISION = (
  "vision_tower.",
  "multi_modal_projector.",
  "model.vision_tower.",
  "model.multi_modal_projector.",
)
# What a directory holds beside the weights, for a tokenizer and a sampler.
_BESIDE = (
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "generation_config.json",
  "chat_template.jinja",
  "chat_template.json",
)
MOST = 5_000_000_000  # bytes of one file


class Leaf(NamedTuple):
  """One of our parameters and the names it is stored under, a layer each."""

  path: tuple[str, ...]
  letters: str
  shape: tuple[int, ...]
  names: tuple[str, ...]

  @property
  def layered(self) -> bool:
    """Whether layers are stacked on its first axis."""
    return self.letters.startswith("N")

  @property
  def one(self) -> tuple[int, ...]:
    """The shape of one layer's."""
    return self.shape[1:] if self.layered else self.shape

  @property
  def matrix(self) -> tuple[int, ...]:
    """The shape of a tensor as it is stored."""
    inputs = _INPUTS.get(self.path[-1], 0)
    if inputs:
      return math.prod(self.one[inputs:]), math.prod(self.one[:inputs])
    table = self.path[-1] in ("embed_VD", "unembed_VD")
    return self.one if table else (math.prod(self.one),)

  def ours(self, x: np.ndarray) -> np.ndarray:
    """A stored tensor as ours; a matrix is copied."""
    x = _transposed(x) if _INPUTS.get(self.path[-1], 0) else x
    return x.reshape(self.one)

  def theirs(self, x: np.ndarray) -> np.ndarray:
    """One layer of ours as it is stored."""
    inputs = _INPUTS.get(self.path[-1], 0)
    if inputs:
      return _transposed(x.reshape(math.prod(self.one[:inputs]), -1))
    return x.reshape(self.matrix)


def _transposed(x: np.ndarray) -> np.ndarray:
  """A copy of x.T, a few rows at a time: 2 to 3 times as fast as at once."""
  out = np.empty(x.shape[::-1], x.dtype)
  for i in range(0, len(x), 32):
    out[:, i : i + 32] = x[i : i + 32].T
  return out


def leaves(config: Model, prefix: str = "model.") -> list[Leaf]:
  """Returns what a decoder's parameters are called in a file, largest first."""
  known = _NAMES | (_POST_NORMED if config.post_norm else {})
  boxed = transformer.abstract(config)
  found = []
  for path, box in jax.tree_util.tree_leaves_with_path(
    boxed, is_leaf=lambda x: hasattr(x, "names")
  ):
    keys = tuple(str(k.key) for k in path if hasattr(k, "key"))
    letters, shape = "".join(box.names), box.value.shape
    name = known["/".join(k for k in keys if k != "layers")]
    names = (name if name == "lm_head.weight" else prefix + name,)
    if letters.startswith("N"):
      names = tuple(f"{prefix}layers.{n}.{name}" for n in range(config.layers))
    found.append(Leaf(keys, letters, shape, names))
  # The largest single tensors come first, while little else is held.
  return sorted(found, key=lambda leaf: -math.prod(leaf.one))


def load(
  directory: str | os.PathLike[str],
  *,
  mesh: Mesh | None = None,
  dtype: Any = None,
) -> tuple[Model, Any]:
  """Returns (config, params) of a checkpoint directory of safetensors.

  Families: Qwen2 and 2.5, Qwen3, Llama 3, Gemma 3 text, and what is built like
  them (DeepSeek-R1-Distill). Parameters have the file's dtype, or `dtype`, to
  which no norm's scale is narrowed; with a mesh each device holds its own part
  of them. The model computes in bf16 where the file does, else in fp32.

  Raises:
    FileNotFoundError: no config.json, or no safetensors file.
    ValueError: a file is damaged; a tensor is missing, one too many, of a wrong
      shape or not finite; a switch that no Model has. Names file and tensor.
  """
  directory = pathlib.Path(directory)
  config = _config(directory)
  found = hf_files.index(directory)
  wanted = _matched(config, found, directory)
  params: dict[str, Any] = {}
  for leaf, stored in wanted:
    where = _placed(leaf, mesh)
    value = _stacked(leaf, stored, where, _dtype(leaf, stored, dtype))
    inner = params
    for key in leaf.path[:-1]:
      inner = inner.setdefault(key, {})
    inner[leaf.path[-1]] = value
  return config, params


def _config(directory: pathlib.Path) -> Model:
  path = directory / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"{path} is not there: is this a checkpoint?")
  try:
    raw = json.loads(path.read_text(encoding="utf-8"))
    config = hf_config.decode(raw)
  except hf_files.DAMAGED as error:
    raise ValueError(f"{path}: {error}") from error
  said = raw | raw.get("text_config", {})
  narrow = "bfloat16" in (said.get("dtype"), said.get("torch_dtype"))
  return dataclasses.replace(config, dtype="bfloat16" if narrow else "float32")


def _matched(
  config: Model, found: dict[str, Stored], directory: pathlib.Path
) -> list[tuple[Leaf, list[Stored]]]:
  """Pairs leaves with their tensors; what is missing or left over is named."""
  text = [name for name in found if name.endswith("embed_tokens.weight")]
  prefix = text[0].removesuffix("embed_tokens.weight") if text else "model."
  pairs = []
  for leaf in leaves(config, prefix):
    for name in leaf.names:
      if name not in found:
        raise ValueError(f"{directory} has no tensor {name}")
      stored = found[name]
      if stored.shape != leaf.matrix:
        raise ValueError(
          f"{stored.path}: {name} is {stored.shape}; config.json makes it "
          f"{leaf.matrix}"
        )
    pairs.append((leaf, [found[name] for name in leaf.names]))
  known = {name for leaf, _ in pairs for name in leaf.names}
  if config.tied:
    known.add("lm_head.weight")  # some files hold the embedding twice
  for name in sorted(found.keys() - known):
    if not name.startswith(_VISION):
      raise ValueError(f"{found[name].path}: {name} is no part of this model")
  return pairs


def _placed(leaf: Leaf, mesh: Mesh | None) -> Sharding:
  if mesh is None:
    return SingleDeviceSharding(jax.devices()[0])
  part = sharding.spec(mesh, leaf.letters, leaf.shape, sharding.PARAMETERS)
  return NamedSharding(mesh, part)


def _dtype(leaf: Leaf, stored: list[Stored], wanted: Any) -> Any:
  """The dtype of a leaf: `wanted`, or else the widest of its layers'."""
  own = functools.reduce(jnp.promote_types, [x.dtype for x in stored])
  norm = leaf.path[-1].startswith("scale")  # which the forward reads in fp32
  return jnp.promote_types(wanted or own, own) if norm else wanted or own


def _stacked(
  leaf: Leaf, stored: list[Stored], where: Sharding, dtype: Any
) -> jax.Array:
  """Reads a leaf's tensors one by one into an array on its devices."""
  read = [functools.partial(_read, leaf, tensor) for tensor in stored]
  if not leaf.layered:
    x, finite = _cast(_put(read[0](), where), dtype)
    return _checked(leaf, stored, x, [finite])
  x = jnp.zeros(leaf.shape, dtype, device=where)
  flags = []
  for n, values in enumerate(_ahead(read)):
    x, finite = _write(x, _put(values, _without_layers(where)), n)
    flags.append(finite)
  return _checked(leaf, stored, x, flags)


def _read(leaf: Leaf, tensor: Stored) -> np.ndarray:
  """A stored tensor as ours."""
  raw = tensor.read()
  return leaf.ours(_bits(raw)).view(raw.dtype)


def _bits(x: np.ndarray) -> np.ndarray:
  """The same memory as unsigned integers, which NumPy moves fast."""
  return x.view(f"u{x.itemsize}")


def _ahead(jobs: Iterable[Callable[[], Any]]) -> Iterator[Any]:
  """Yields what each job returns, while the next one runs in a thread."""
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    last = None
    for job in jobs:
      following = pool.submit(job)
      if last is not None:
        yield last.result()
      last = following
    if last is not None:
      yield last.result()


def _checked(leaf, stored, x, flags) -> jax.Array:
  for name, tensor, finite in zip(leaf.names, stored, flags, strict=True):
    if not finite:
      raise ValueError(f"{tensor.path}: {name} holds NaN or infinity")
  return x


def _without_layers(where: Sharding) -> Sharding:
  if isinstance(where, NamedSharding):
    rest = jax.sharding.PartitionSpec(*where.spec[1:])
    return NamedSharding(where.mesh, rest)
  return where


def _put(x: np.ndarray, where: Sharding) -> jax.Array:
  """Puts an array on its devices, on each only its part."""
  part = lambda index: np.ascontiguousarray(_bits(x)[index]).view(x.dtype)
  return jax.make_array_from_callback(x.shape, where, part)


@functools.partial(jax.jit, donate_argnums=0)
def _write(x: jax.Array, layer: jax.Array, n: int) -> tuple[Any, jax.Array]:
  layer = layer.astype(x.dtype)
  return x.at[n].set(layer), jnp.isfinite(layer).all()


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def _cast(x: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
  x = x.astype(dtype)
  return x, jnp.isfinite(x).all()


def save(
  directory: str | os.PathLike[str],
  config: Model,
  params: Any,
  *,
  source: str | os.PathLike[str] | None = None,
  dtype: Any = None,
  most: int = MOST,
) -> None:
  """Writes a checkpoint directory that transformers, vLLM and others read.

  The tokenizer's files and the ids of special tokens come from `source`, the
  directory that the student began from, or any that has them. Numbers keep
  their dtype, or become `dtype`. The directory appears whole or not at all;
  files hold at most `most` bytes.

  Raises:
    FileExistsError: something is there already: nothing is overwritten.
    ValueError: no published family has these switches, or adapters; the
      parameters are not the config's, or not finite: names one.
  """
  if config.lora is not None:
    raise ValueError(
      "a decoder with a LoRA is no checkpoint: merge it (lora.merge), or write "
      "its adapters (peft.save)"
    )
  _check(config, params)
  described = _described(config, dtype or params["embed_VD"].dtype, source)
  with hf_files.appearing(directory) as made:
    (made / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    for path in (
      [] if source is None else map(pathlib.Path(source).joinpath, _BESIDE)
    ):
      if path.is_file():
        shutil.copyfile(path, made / path.name)
    hf_files.write(made, _items(config, params, dtype), most)


def _check(config: Model, params: Any) -> None:
  """Raises ValueError unless the parameters are those of the config."""
  known = lambda path: tuple(str(part.key) for part in path)
  held = {
    known(path): x
    for path, x in jax.tree_util.tree_leaves_with_path(
      params, is_leaf=quantize.is_quantised
    )
  }
  for leaf in leaves(config):
    name, x = "/".join(leaf.path), held.pop(leaf.path, None)
    if x is None or quantize.is_quantised(x) or x.shape != leaf.shape:
      found = "absent" if x is None else f"quantised or {x.shape}"
      raise ValueError(f"{name} is {found}; the config makes it {leaf.shape}")
  if held:
    raise ValueError(f"{'/'.join(min(held))} is no parameter of the config")


def _described(config: Model, dtype: Any, source: Any) -> dict[str, Any]:
  """What config.json says, with the special tokens of the source's."""
  described = hf_config.encode(config) | {"torch_dtype": jnp.dtype(dtype).name}
  for name in ("generation_config.json", "config.json"):
    path = None if source is None else pathlib.Path(source) / name
    if path is not None and path.is_file():
      raw = json.loads(path.read_text())
      kept = ("bos_token_id", "eos_token_id", "pad_token_id")
      described |= {name: raw[name] for name in kept if name in raw}
  return described


def _items(config: Model, params: Any, dtype: Any) -> Iterator[Item]:
  """Yields the tensors, each fetched from its devices when it is written."""
  for leaf in leaves(config):
    value = params
    for key in leaf.path:
      value = value[key]
    for n, name in enumerate(leaf.names):
      own = jnp.dtype(dtype or value.dtype)
      fetch = functools.partial(_fetch, leaf, value, n, own)
      yield Item(name, own, leaf.matrix, fetch)


def _fetch(leaf: Leaf, value: jax.Array, n: int, dtype: Any) -> np.ndarray:
  x = np.asarray((value[n] if leaf.layered else value).astype(dtype))
  if not np.isfinite(x).all():
    raise ValueError(f"{leaf.names[n]} holds NaN or infinity")
  return leaf.theirs(_bits(x)).view(x.dtype)
