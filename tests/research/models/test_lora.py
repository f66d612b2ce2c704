"""Adapters: the merged function, exact gradients, and nothing full-size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import jaxprs_in_params

from research import sharding
from research.losses import forward_kl, supervised
from research.models import lora, quantize, transformer
from research.models.config import MATRICES, TARGETS, Lora, Model
from research.sampling import engine
from research.sampling.sampler import Sampling
from research.training import objectives
from research.types import Batch

# No two axes are alike, so that a shape says which array it is.
PLAIN = Model(
  vocab=40,
  width=24,
  layers=2,
  kv_heads=2,
  groups=4,
  head_dim=6,
  mlp=56,
  context=64,
  qk_norm=True,
)
ADAPTED = dataclasses.replace(PLAIN, lora=Lora(5, 10.0))
WIDE = dataclasses.replace(ADAPTED, dtype="float64")


def drawn(config, seed=0):
  """Parameters, adapters included, of which none is zero."""
  shapes = nn.unbox(transformer.abstract(config))
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), config.dtype), shapes
  )


def rows(n=2, T=9):
  rng = np.random.default_rng(0)
  tokens = jnp.asarray(rng.integers(0, 40, (n, T)), jnp.int32)
  places = jnp.broadcast_to(jnp.arange(T)[None], (n, T))
  ones = jnp.ones((n, T), jnp.int32)
  return Batch(tokens, jnp.ones((n, T)), places, ones)


@functools.partial(jax.jit, static_argnums=0)
def hidden(config, params, cache=None):
  batch = rows()
  segments = batch.segments_BT if cache is None else None
  given = batch.tokens_BT, batch.positions_BT, segments, cache
  return transformer.apply(config, params, *given)[0]


narrowed = jax.jit(quantize.quantize, static_argnums=1)


@functools.cache
def initial(config):
  return transformer.init(config, jax.random.key(0))


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def explicit(config, params):
  """The base with W + scale A B in each matrix, written anew in NumPy."""
  base, adapters = lora.split(params)
  layers = {room: dict(base["layers"][room]) for room in ("attention", "mlp")}
  for room, stem, matrix in (
    ("attention", "q", "q_DKGH"),
    ("attention", "k", "k_DKH"),
    ("attention", "v", "v_DKH"),
    ("attention", "o", "o_KGHD"),
    ("mlp", "gate", "gate_DF"),
    ("mlp", "up", "up_DF"),
    ("mlp", "down", "down_FD"),
  ):
    held = adapters["layers"][room][f"{stem}_lora"]
    a, b = (held[name] for name in sorted(held))
    N, R = a.shape[0], a.shape[-1]
    w = layers[room][matrix]
    change = a.reshape(N, -1, R) @ b.reshape(N, R, -1)
    scale = config.lora.alpha / config.lora.rank
    layers[room][matrix] = w + scale * change.reshape(w.shape)
  return base | {"layers": base["layers"] | layers}


def only(target, params):
  """The parameters, with the adapters of other matrices silent."""

  def one(path, x):
    adapter, half = path[-2].key, path[-1].key
    silent = half.startswith("b_R") and adapter != f"{target}_lora"
    return x * 0 if silent and adapter.endswith("_lora") else x

  layers = jax.tree_util.tree_map_with_path(one, params["layers"])
  return params | {"layers": layers}


@pytest.mark.parametrize("target", [*TARGETS, "all"])
def test_merged_is_unmerged(x64, target):
  params = drawn(WIDE)
  params = params if target == "all" else only(target, params)
  plain, merged = lora.merge(WIDE, params)
  assert plain == dataclasses.replace(PLAIN, dtype="float64")
  said = hidden(WIDE, params)
  np.testing.assert_allclose(hidden(plain, merged), said, rtol=0, atol=1e-10)
  wanted = explicit(WIDE, params)
  np.testing.assert_allclose(hidden(plain, wanted), said, rtol=0, atol=1e-10)
  # Negative control: this adapter does something.
  assert np.abs(hidden(plain, lora.split(params)[0]) - said).max() > 1e-2


def test_what_is_no_target_has_no_adapter():
  config = dataclasses.replace(PLAIN, lora=Lora(5, 10.0, ("o",)))
  adapters = lora.trained(config, nn.unbox(transformer.abstract(config)))
  shapes = jax.tree.map(lambda x: x.shape, adapters)
  held = {"a_KGHR": (2, 2, 4, 6, 5), "b_RD": (2, 5, 24)}
  assert shapes == {"layers": {"attention": {"o_lora": held}}}
  more = sum(x.size for x in jax.tree.leaves(adapters))
  assert transformer.count(config) - transformer.count(PLAIN) == more


def test_fresh_adapters_change_no_bit():
  base = initial(PLAIN)
  assert_same(lora.split(initial(ADAPTED))[0], base)
  said = np.asarray(hidden(PLAIN, base))
  np.testing.assert_array_equal(hidden(ADAPTED, initial(ADAPTED)), said)


def test_a_begins_as_in_peft():
  """Uniform within 1 / sqrt(inputs), which is Kaiming's with a = sqrt(5)."""
  params = initial(ADAPTED)
  for name, inputs in (("q", 24), ("o", 48), ("down", 56)):
    room = params["layers"]["mlp" if name == "down" else "attention"]
    a = next(x for n, x in room[f"{name}_lora"].items() if n.startswith("a_"))
    assert 0.95 < np.abs(a).max() * inputs**0.5 <= 1
    np.testing.assert_allclose(a.std(), (3 * inputs) ** -0.5, rtol=0.1)


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_gradients_are_those_through_the_merged_weight(x64):
  base, adapters = lora.split(drawn(WIDE))
  plain = dataclasses.replace(PLAIN, dtype="float64")
  weights = np.random.default_rng(2).normal(size=(2, 9, 24))
  total = lambda h: (h * weights).sum()
  ours = jax.grad(lambda a: total(hidden(WIDE, lora.join(base, a))))(adapters)
  wanted = jax.grad(
    lambda a: total(hidden(plain, explicit(WIDE, lora.join(base, a))))
  )(adapters)
  for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-10 * np.abs(y).max())
    assert np.abs(y).max() > 1e-3


def test_rslora_divides_by_the_root():
  assert Lora(4, 6.0).scale == 1.5
  assert Lora(4, 6.0, rslora=True).scale == 3.0


def test_parts_join_and_several_share_one_base():
  params = drawn(ADAPTED)
  base, first = lora.split(params)
  assert_same(lora.join(base, first), params)
  second = lora.split(drawn(ADAPTED, 1))[1]
  both = [lora.join(base, adapters) for adapters in (first, second)]
  for joined in both:
    for x, y in zip(
      jax.tree.leaves(lora.split(joined)[0]), jax.tree.leaves(base), strict=True
    ):
      assert x is y  # shared, not copied
  said = [hidden(ADAPTED, joined) for joined in both]
  assert np.abs(said[0] - said[1]).max() > 1e-2
  assert lora.trained(PLAIN, base) is base
  assert_same(lora.trained(ADAPTED, params), first)
  assert lora.merge(PLAIN, base) == (PLAIN, base)


def test_a_base_in_the_compute_dtype_is_the_same_to_the_bit():
  config = dataclasses.replace(ADAPTED, dtype="bfloat16")
  base, adapters = lora.split(drawn(ADAPTED))
  held = transformer.in_compute_dtype(config, base)
  assert held["embed_VD"].dtype == jnp.bfloat16
  said = hidden(config, lora.join(base, adapters))
  assert said.dtype == jnp.bfloat16
  assert (hidden(config, lora.join(held, adapters)) == said).all()


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_with_a_cache_as_without(bits):
  base, adapters = lora.split(drawn(ADAPTED))
  base = base if bits is None else narrowed(base, bits)
  params = lora.join(base, adapters)
  cache = transformer.empty_cache(ADAPTED, 2, 12)
  narrow = transformer.in_compute_dtype(ADAPTED, params)
  said = hidden(ADAPTED, narrow, cache)
  np.testing.assert_allclose(said, hidden(ADAPTED, params), atol=1e-4)


def test_adapters_over_4_bits_write_what_they_write_merged():
  base, adapters = lora.split(drawn(ADAPTED))
  params = lora.join(narrowed(base, 4), adapters)
  write = lambda model, held: (
    engine.complete(
      model,
      held,
      [np.asarray(rows().tokens_BT[0])],
      jax.random.key(0),
      sampling=Sampling(0.0),
      new_tokens=6,
      stop=39,
      rows=1,
    )[0].tokens
  )
  merged = write(*lora.merge(ADAPTED, params))
  np.testing.assert_array_equal(write(ADAPTED, params), merged)
  assert len(merged) == 6


def test_every_device_agrees_with_one():
  params, batch = drawn(ADAPTED), rows(8, 16)
  base, adapters = lora.split(params)
  loss = functools.partial(supervised.loss, block=64)

  def gradient(mesh, *parts):
    objective = lora.over(objectives.imitation(ADAPTED, loss, mesh))
    base, adapters, batch = parts
    total = lambda a: objective(a, (base, None), batch)[0]
    return jax.jit(jax.value_and_grad(total))(adapters)

  one = gradient(None, base, adapters, batch)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  where = sharding.of_parameters(transformer.abstract(ADAPTED), mesh)
  placed = [jax.device_put(*x) for x in zip(
    (base, adapters), lora.split(where), strict=True
  )]  # fmt: skip
  eight = gradient(mesh, *placed, sharding.place(batch, mesh))
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
    np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-4 * np.abs(x).max())


def arrays(jaxpr):
  """Shapes of all that a program makes, also within its loops and calls."""
  for eqn in jaxpr.eqns:
    yield from (v.aval.shape for v in eqn.outvars)
    for inner in jaxprs_in_params(eqn.params):
      yield from arrays(inner)


def full_size(program, *args):
  """Which matrices' shapes, stacked or of one layer, a program makes."""
  sizes = PLAIN.sizes
  shapes = {name: [sizes[x] for x in name.split("_")[1]] for name in MATRICES}
  made = {tuple(s) for s in arrays(jax.make_jaxpr(program)(*args).jaxpr)}
  return {
    name
    for name, s in shapes.items()
    if {tuple(s), tuple(s[::-1]), (PLAIN.layers, *s)} & made
  }


@pytest.mark.parametrize(
  ("remat", "teacher"),
  [
    ("nothing", False),
    ("elementwise", False),
    ("everything", False),
    ("nothing", True),
  ],
)
def test_no_gradient_is_as_large_as_a_matrix(remat, teacher):
  config = dataclasses.replace(ADAPTED, remat=remat)
  base, adapters = lora.split(drawn(config))
  if teacher:
    objective = objectives.matching(config, PLAIN, forward_kl.loss)
  else:
    objective = objectives.imitation(config, supervised.loss)
  adapted = lora.over(objective)
  total = lambda a: adapted(a, (base, base), rows())[0]
  assert not full_size(jax.grad(total), adapters)

  # Negative control: merging inside of the loss makes all of them.
  def merged(a):
    plain, params = lora.merge(config, lora.join(base, a))
    return objectives.imitation(plain, supervised.loss)(params, None, rows())[0]

  assert full_size(jax.grad(merged), adapters) == set(MATRICES)


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_step_holds_no_second_base(bits):
  """Temporaries of a large model's gradient, against the bytes of its base."""
  sizes = {"width": 256, "mlp": 1024, "layers": 8}
  config = dataclasses.replace(ADAPTED, **sizes)
  base, adapters = lora.split(nn.unbox(transformer.abstract(config)))
  if bits is not None:
    narrow = functools.partial(quantize.quantize, bits=bits)
    base = jax.eval_shape(narrow, base)
  objective = objectives.imitation(config, supervised.loss)

  def temporaries(total, *args):
    compiled = jax.jit(jax.grad(total)).lower(*args, rows()).compile()
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes, memory.output_size_in_bytes

  adapted = lambda a, b, x: lora.over(objective)(a, (b, None), x)[0]
  held, made = temporaries(adapted, adapters, base)
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(base["layers"]))
  assert made < 1.1 * sum(4 * x.size for x in jax.tree.leaves(adapters)) + 4096
  if bits is None:
    assert held < 0.5 * size
    whole = lambda p, x: objective(p, None, x)[0]
    control = temporaries(whole, lora.join(base, adapters))
    assert sum(control) > size
  else:  # a layer is widened at a time; all of them would take 4 times the size
    assert held < 2.5 * size


@pytest.mark.parametrize(
  ("bad", "said"),
  [
    ({"rank": 0}, "rank is 0"),
    ({"alpha": 0.0}, r"alpha 0\.0"),
    ({"alpha": float("nan")}, "alpha nan"),
    ({"targets": ()}, "name some of"),
    ({"targets": ("q", "q")}, "each once"),
    ({"targets": ("embed",)}, "embed"),
  ],
)
def test_refuses_adapters_that_mean_nothing(bad, said):
  with pytest.raises(ValueError, match=said):
    Lora(**{"rank": 2, "alpha": 2.0, **bad})
