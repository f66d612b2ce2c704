"""No dead switches: each field of a model changes what is computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from research.models import transformer
from research.models.config import Lora, Model, Rope
from research.sampling import engine
from research.training import objectives
from research.types import Batch

BASE = Model(
  vocab=24,
  width=16,
  layers=4,
  kv_heads=2,
  groups=2,
  head_dim=8,
  mlp=24,
  context=32,
  window=3,
  global_every=3,
)
LLAMA3 = Rope(base=100.0, scaling="llama3", factor=8.0, original=8)
YARN = Rope(
  base=100.0, scaling="yarn", factor=4.0, original=8, beta_fast=1.2, beta_slow=1
)

# field: what to change, and what that changes
MODEL = {
  "vocab": (30, "shapes"),
  "width": (20, "shapes"),
  "layers": (5, "shapes"),
  "kv_heads": (1, "shapes"),
  "groups": (3, "shapes"),
  "head_dim": (12, "shapes"),
  "mlp": (28, "shapes"),
  "context": (8, "refusal"),
  "rope": (Rope(base=100.0), "output"),
  "activation": ("gelu", "output"),
  "norm_eps": (1e-2, "output"),
  "qk_norm": (True, "shapes"),
  "qkv_bias": (True, "shapes"),
  "tied": (False, "shapes"),
  "window": (5, "output"),
  "global_every": (2, "output"),
  "local_rope": (Rope(base=100.0), "output"),
  "unit_offset": (True, "output"),
  "post_norm": (True, "shapes"),
  "embed_scale": (True, "output"),
  "attention_scale": (1.0, "output"),
  "attention_softcap": (0.1, "output"),
  "logit_softcap": (0.5, "law"),
  "dtype": ("bfloat16", "program"),
  "remat": ("everything", "program"),
  "lora": (Lora(2, 4.0), "shapes"),
}

# field: what to change in Lora(2, 4.0), and what that changes
LORA = {
  "rank": (3, "shapes"),
  "alpha": (5.0, "output"),
  "targets": (("q", "down"), "shapes"),
  "rslora": (True, "output"),
}

# field: the rope it matters to, and what to change
ROPE = {
  "base": (Rope(base=100.0), 50.0),
  "scaling": (Rope(base=100.0, factor=8.0), "linear"),
  "factor": (Rope(base=100.0, scaling="linear", factor=8.0), 2.0),
  "original": (LLAMA3, 16),
  "low_frequency": (LLAMA3, 0.1),
  "high_frequency": (LLAMA3, 1.1),
  "beta_fast": (YARN, 0.4),
  "beta_slow": (YARN, 0.1),
}

TOKENS = np.random.default_rng(0).integers(0, 24, (1, 12)).astype(np.int32)
PLACES = np.arange(12, dtype=np.int32)[None]
ONES = np.ones_like(PLACES)


def shapes(cfg):
  shaped = nn.unbox(transformer.abstract(cfg))
  return jax.tree.map(lambda x: x.shape, shaped)


def params_of(cfg):
  rng = np.random.default_rng(1)
  draw = lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32)
  return jax.tree.map(draw, nn.unbox(transformer.abstract(cfg)))


@functools.cache
def output(cfg):
  run = jax.jit(lambda p: transformer.apply(cfg, p, TOKENS, PLACES, ONES)[0])
  return np.asarray(run(params_of(cfg)))


def program(cfg):
  """The text of a gradient's program."""
  total = lambda p: transformer.apply(cfg, p, TOKENS, PLACES, ONES)[0].sum()
  grad = jax.jit(jax.grad(total))
  return grad.lower(nn.unbox(transformer.abstract(cfg))).as_text()


def test_every_field_has_a_row():
  assert list(MODEL) == [f.name for f in dataclasses.fields(Model)]
  assert list(ROPE) == [f.name for f in dataclasses.fields(Rope)]
  assert list(LORA) == [f.name for f in dataclasses.fields(Lora)]


def rows_of(kind):
  return [name for name, (_, changes) in MODEL.items() if changes == kind]


@pytest.mark.parametrize("name", rows_of("shapes"))
def test_changes_the_parameters(name):
  changed = dataclasses.replace(BASE, **{name: MODEL[name][0]})
  assert shapes(changed) != shapes(BASE)


def same_shapes_other_output(before, after):
  assert shapes(before) == shapes(after)
  gap = np.abs(output(before) - output(after)).max()
  assert gap > 1e-4, gap


@pytest.mark.parametrize("name", rows_of("output"))
def test_changes_the_output(name):
  changed = dataclasses.replace(BASE, **{name: MODEL[name][0]})
  same_shapes_other_output(BASE, changed)


@pytest.mark.parametrize("name", ROPE)
def test_changes_the_rotation(name):
  before, value = ROPE[name]
  after = dataclasses.replace(before, **{name: value})
  use = lambda rope: dataclasses.replace(BASE, rope=rope)
  same_shapes_other_output(use(before), use(after))


@pytest.mark.parametrize("name", LORA)
def test_changes_the_adapters(name):
  value, kind = LORA[name]
  before = dataclasses.replace(BASE, lora=Lora(2, 4.0))
  lora = dataclasses.replace(Lora(2, 4.0), **{name: value})
  after = dataclasses.replace(BASE, lora=lora)
  if kind == "output":
    same_shapes_other_output(before, after)
  else:
    assert shapes(before) != shapes(after)


@pytest.mark.parametrize("name", rows_of("program"))
def test_changes_the_program(name):
  changed = dataclasses.replace(BASE, **{name: MODEL[name][0]})
  assert program(changed) != program(BASE)
  assert program(dataclasses.replace(BASE)) == program(BASE)


@pytest.mark.parametrize("name", rows_of("law"))
def test_changes_the_law_of_trainer_and_sampler(name):
  value = MODEL[name][0]
  base = dataclasses.replace(BASE, layers=1)
  changed = dataclasses.replace(base, **{name: value})
  params = params_of(base)
  batch = Batch(TOKENS, jnp.ones((1, 12)), PLACES, ONES)
  for cfg, cap in ((base, None), (changed, value)):
    assert objectives.speak(cfg, params, batch).softcap == cap
  last = jnp.array([11])

  def sampled(cfg):
    cache = transformer.empty_cache(cfg, 1, 12)
    run = jax.jit(functools.partial(engine._next, cfg))
    return run(params, TOKENS, PLACES, last, cache)[0]

  said = sampled(base), sampled(changed)
  assert np.abs(said[0] - said[1]).max() > 1e-3


@pytest.mark.parametrize("name", rows_of("refusal"))
def test_refuses_what_the_other_takes(name):
  changed = dataclasses.replace(BASE, **{name: MODEL[name][0]})
  engine._check(BASE, TOKENS, 4)
  with pytest.raises(ValueError, match=name):
    engine._check(changed, TOKENS, 4)


@pytest.mark.parametrize(
  "bad, said",
  [
    ({"head_dim": 7}, "head_dim is 7"),
    ({"layers": 0}, "N is 0"),
    ({"width": -8}, "D is -8"),
    ({"context": 0}, "context is 0"),
    ({"window": 0}, "window is 0"),
    ({"global_every": 0}, "global_every is 0"),
    ({"global_every": 1}, "local layers need"),
    ({"window": None}, "local layers need"),
    (
      {"window": None, "global_every": 1, "local_rope": Rope()},
      "local layers need",
    ),
  ],
)
def test_refuses_a_shape_that_means_nothing(bad, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(BASE, **bad)
