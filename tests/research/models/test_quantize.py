"""Matrices in few bits: what they mean, what is lost, and where they lie."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from research import sharding
from research.models import lora, quantize, transformer
from research.models.config import MATRICES, Lora, Model

CONFIG = Model(
  vocab=40,
  width=128,
  layers=2,
  kv_heads=2,
  groups=3,
  head_dim=16,
  mlp=192,
  context=64,
)
ROWS = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, 9)), jnp.int32)


def drawn(dtype=jnp.float32):
  """Parameters whose rows and columns differ in size."""
  shapes = nn.unbox(transformer.abstract(CONFIG))
  rng = np.random.default_rng(0)
  size = lambda x: np.exp(rng.normal(size=(*x.shape[:-1], 1)))
  draw = lambda x: 0.1 * rng.normal(size=x.shape) * size(x)
  return jax.tree.map(lambda x: jnp.asarray(draw(x), dtype), shapes)


@functools.partial(jax.jit, static_argnums=0)
def hidden(config, params):
  places = jnp.broadcast_to(jnp.arange(9)[None], (2, 9))
  ones = jnp.ones((2, 9), jnp.int32)
  return transformer.apply(config, params, ROWS, places, ones)[0]


narrowed = jax.jit(quantize.quantize, static_argnums=1)


def matrices(params):
  layers = params["layers"]
  return layers["attention"] | layers["mlp"]


def by_hand(x, inputs, bits):
  """Symmetric rounding with a scale a channel, or a scale a tile of inputs."""
  N, out = x.shape[0], x.shape[1 + inputs :]
  flat = np.asarray(x, np.float64).reshape(N, -1, x.shape[inputs], *out)
  tile = 64 if flat.shape[2] % 64 == 0 else 16
  if bits == 4:
    flat = flat.reshape(N, -1, tile, *out)
  axes = 2 if bits == 4 else (1, 2)
  most = 2 ** (bits - 1)
  scale = np.abs(flat).max(axes, keepdims=True) / (most - 0.5)
  exact = flat / scale
  whole = np.clip(np.round(exact), -most, most - 1)
  tied = np.abs(exact % 1 - 0.5) < 1e-4  # goes either way, as does the least
  return (whole * scale).reshape(x.shape), tied.reshape(x.shape)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_numbers_are_those_of_the_formula(bits):
  params = drawn()
  narrow = narrowed(params, bits)
  for name, inputs in MATRICES.items():
    held, x = matrices(narrow)[name], matrices(params)[name]
    assert held.qvalue.dtype == {8: jnp.int8, 4: jnp.int4}[bits]
    assert held.qvalue.shape == x.shape and held.scale.dtype == jnp.float32
    meant = quantize.dequantize(held)
    wanted, tied = by_hand(x, len(inputs), bits)
    gap = np.where(tied, 0, np.abs(meant - wanted)).max()
    assert gap <= 1e-5 * np.abs(x).max(), name
    assert tied.mean() < 0.1
    assert np.abs(meant - x).max() > 1e-3 * np.abs(x).max()  # something is lost
  for name in ("embed_VD", "final_norm"):
    assert (
      ravel_pytree(narrow[name])[0] == ravel_pytree(params[name])[0]
    ).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_the_forward_is_that_of_the_numbers_meant(bits):
  with jax.enable_x64(True):
    config = dataclasses.replace(CONFIG, dtype="float64")
    narrow = narrowed(drawn(jnp.float64), bits)
    said = hidden(config, narrow)
    wanted = hidden(config, quantize.dequantize(narrow))
  np.testing.assert_allclose(said, wanted, rtol=0, atol=1e-10)


def test_what_is_lost_is_bounded():
  """Root mean square of the change of the output, whose own is 1."""
  whole = hidden(CONFIG, drawn())
  lost = {}
  for bits in (8, 4):
    said = hidden(CONFIG, narrowed(drawn(), bits))
    lost[bits] = float(
      jnp.sqrt(jnp.mean((said - whole) ** 2) / jnp.mean(whole**2))
    )
  assert 1e-4 < lost[8] < 0.1 and lost[8] < 0.2 * lost[4], lost


def test_each_layer_has_its_own_scales():
  params = drawn()
  layers = jax.tree.map(
    lambda x: x * jnp.array([1.0, 100.0]).reshape(2, *[1] * (x.ndim - 1)),
    params["layers"],
  )
  narrow = narrowed(params | {"layers": layers}, 8)
  one = narrowed(params, 8)
  for name in MATRICES:
    scale, other = matrices(narrow)[name].scale, matrices(one)[name].scale
    np.testing.assert_allclose(scale[1], 100 * other[1], rtol=1e-5)
    np.testing.assert_array_equal(scale[0], other[0])


@pytest.mark.parametrize("bits", [8, 4])
def test_on_a_mesh_as_on_one_device(bits):
  narrow = narrowed(drawn(), bits)
  mesh = sharding.make_mesh(fsdp=4, tensor=2)
  boxed = quantize.abstract(transformer.abstract(CONFIG), bits)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), nn.unbox(boxed)) == (
    jax.tree.map(lambda x: (x.shape, x.dtype), narrow)
  )
  where = sharding.of_parameters(boxed, mesh)
  placed = jax.jit(
    functools.partial(quantize.quantize, bits=bits), out_shardings=where
  )(drawn())
  for x, y in zip(
    jax.tree.leaves(placed), jax.tree.leaves(narrow), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  q = placed["layers"]["attention"]["q_DKGH"]
  assert q.qvalue.addressable_shards[0].data.size == q.qvalue.size // 8
  assert q.scale.addressable_shards[0].data.shape[2] == 1
  np.testing.assert_allclose(
    hidden(CONFIG, placed), hidden(CONFIG, narrow), rtol=1e-4, atol=1e-4
  )


def test_bf16_reads_scales_in_fp32():
  config = dataclasses.replace(CONFIG, dtype="bfloat16")
  narrow = transformer.in_compute_dtype(config, narrowed(drawn(), 8))
  assert matrices(narrow)["o_KGHD"].scale.dtype == jnp.float32
  assert narrow["embed_VD"].dtype == jnp.bfloat16
  said, wanted = hidden(config, narrow), hidden(CONFIG, narrow)
  assert said.dtype == jnp.bfloat16
  gap = np.abs(np.float32(said) - wanted)
  assert gap.mean() < 0.02 * np.abs(wanted).max()


def test_bytes():
  """int8 is a quarter of fp32; its scales are few."""
  params = drawn()["layers"]
  narrow = narrowed(params, 8)
  sizes = [
    sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in (narrow, params)
  ]
  assert sizes[0] < 0.27 * sizes[1]


def test_merging_widens_the_base():
  config = dataclasses.replace(CONFIG, lora=Lora(3, 6.0))
  fresh = transformer.init(config, jax.random.key(0))
  adapters = lora.split(fresh)[1]
  adapters = jax.tree.map(lambda x: x + 0.1, adapters)
  params = lora.join(narrowed(drawn(), 8), adapters)
  plain, merged = lora.merge(config, params)
  assert not any(map(quantize.is_quantised, jax.tree.leaves(
    merged, is_leaf=quantize.is_quantised
  )))  # fmt: skip
  np.testing.assert_allclose(
    hidden(plain, merged), hidden(config, params), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("bits", [8, 4])
def test_adapters_over_few_bits_have_the_gradients_of_the_numbers_meant(bits):
  config = dataclasses.replace(CONFIG, lora=Lora(3, 6.0), dtype="float64")
  rng = np.random.default_rng(1)
  with jax.enable_x64(True):
    shapes = lora.trained(config, nn.unbox(transformer.abstract(config)))
    adapters = jax.tree.map(
      lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape)), shapes
    )
    weights = jnp.asarray(rng.normal(size=(2, 9, CONFIG.width)))
    narrow = narrowed(drawn(jnp.float64), bits)

    @jax.jit
    def gradient(base):
      said = lambda a: (hidden(config, lora.join(base, a)) * weights).sum()
      return jax.grad(said)(adapters)

    found, wanted = gradient(narrow), gradient(quantize.dequantize(narrow))
    other = gradient(drawn(jnp.float64))
  scale = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  gap = lambda a, b: max(
    float(np.abs(x - y).max())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )
  assert gap(found, wanted) <= 1e-10 * scale
  assert gap(other, wanted) > 1e-4 * scale  # the rounding is felt


@pytest.mark.parametrize("bits", [1, 16, 4.5])
def test_other_bits_are_refused(bits):
  with pytest.raises(ValueError, match=f"bits is {bits}"):
    quantize.quantize(drawn(), bits)


def test_what_is_trained_is_refused():
  config = dataclasses.replace(CONFIG, lora=Lora(3, 6.0))
  adapters = lora.trained(config, nn.unbox(transformer.abstract(config)))
  with pytest.raises(ValueError, match=r"_lora.* is a LoRA's.*lora\.split"):
    quantize.quantize(adapters, 8)
  with pytest.raises(ValueError, match="quantised already"):
    quantize.quantize(quantize.quantize(drawn(), 8), 4)
