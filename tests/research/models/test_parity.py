"""The decoder against transformers: checkpoints and what it said of them.

tests/golden/huggingface holds tiny checkpoints that transformers wrote, with
its logits, gradients and greedy tokens; `make oracle` makes them anew.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from research.losses import supervised
from research.models import huggingface, rope, transformer
from research.sampling import engine
from research.sampling.sampler import Sampling
from research.training import objectives
from research.types import Batch

FOLDER = pathlib.Path(__file__).parents[2] / "golden" / "huggingface"
CASES = sorted(p.name for p in FOLDER.iterdir())
FAST = ("qwen2_seven_to_one", "llama3", "gemma3")
FEW = [
  pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
  for name in CASES
]


def said(name):
  return dict(np.load(FOLDER / name / "said.npz"))


def logits(config, params, tokens_BT):
  positions_BT = jnp.broadcast_to(
    jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape
  )
  hidden_BTD, _, _ = transformer.apply(config, params, tokens_BT, positions_BT)
  unembed_VD = transformer.unembedding(config, params)
  return jnp.einsum("BTD,VD->BTV", hidden_BTD, unembed_VD)


def gap(got, expected):
  """The largest difference, in parts of the expected's range."""
  return np.abs(np.asarray(got) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("name", CASES)
def test_logits(name):
  config, params = huggingface.load(FOLDER / name)
  expected = said(name)
  tokens_BT = jnp.asarray(expected["tokens"], jnp.int32)
  assert gap(logits(config, params, tokens_BT), expected["logits"]) <= 1e-4


@pytest.mark.parametrize("name", CASES)
def test_what_was_read_is_written_again_bit_for_bit(name, tmp_path):
  config, params = huggingface.load(FOLDER / name)
  huggingface.save(tmp_path / name, config, params)
  held, written = (
    safetensors.numpy.load_file(folder / name / "model.safetensors")
    for folder in (FOLDER, tmp_path)
  )
  assert held.keys() == written.keys()
  for key, x in held.items():
    assert x.dtype == written[key].dtype
    np.testing.assert_array_equal(x, written[key])


def test_swapped_layers_would_be_seen():
  """Negative control: the same tensors, layers 0 and 1 the other way round."""
  config, params = huggingface.load(FOLDER / "qwen3_wide_heads")
  flipped = jax.tree.map(lambda x: x[::-1], params["layers"])
  expected = said("qwen3_wide_heads")
  tokens_BT = jnp.asarray(expected["tokens"], jnp.int32)
  wrong = logits(config, params | {"layers": flipped}, tokens_BT)
  assert gap(wrong, expected["logits"]) > 1e-2


@pytest.mark.parametrize("name", FEW)
def test_gradients(name):
  config, params = huggingface.load(FOLDER / name)
  expected = said(name)
  tokens_BT = jnp.asarray(expected["tokens"], jnp.int32)
  B, T = tokens_BT.shape
  at_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  rows = Batch(
    tokens_BT,
    (at_BT < T - 1).astype(jnp.float32),
    at_BT,
    jnp.ones((B, T), jnp.int32),
  )
  objective = objectives.imitation(config, supervised.loss)

  def mean(params):
    total, count, _ = objective(params, None, rows)
    return total / count

  loss, grads = jax.jit(jax.value_and_grad(mean))(params)
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
  for leaf in huggingface.leaves(config):
    value = grads
    for key in leaf.path:
      value = value[key]
    layers = np.asarray(value) if leaf.layered else np.asarray(value)[None]
    for name_, layer in zip(leaf.names, layers, strict=True):
      wanted = expected[f"gradient/{name_}"]
      assert gap(leaf.theirs(layer), wanted) <= 1e-4, name_


@pytest.mark.parametrize("name", FEW)
def test_greedy_tokens(name):
  config, params = huggingface.load(FOLDER / name)
  expected = said(name)
  prompt = expected["tokens"][0].astype(np.int32)
  written = engine.complete(
    config,
    params,
    [prompt],
    jax.random.key(0),
    sampling=Sampling(0.0),
    new_tokens=len(expected["greedy"]),
    stop=config.vocab,  # never
  )
  assert written[0].tokens.tolist() == expected["greedy"].tolist()


@pytest.mark.parametrize("name", CASES)
def test_what_is_compared_tells_models_apart(name):
  """Greedy tokens vary, and scaled rotations lie within the blend."""
  assert len(set(said(name)["greedy"].tolist())) >= 10
  config, _ = huggingface.load(FOLDER / name)
  if config.rope.scaling in ("llama3", "yarn"):
    plain = dataclasses.replace(config.rope, scaling="none")
    scaled = rope.frequencies(config.rope, config.head_dim)
    share = scaled / rope.frequencies(plain, config.head_dim)
    low = 1 / config.rope.factor
    assert ((share > 1.05 * low) & (share < 0.95)).any(), share
