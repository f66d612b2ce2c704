"""One decoder: cached = whole, packed = alone, for each family's switches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models import presets, rope, transformer
from research.models.config import Model, Rope

TINY = Model(
  vocab=64,
  width=32,
  layers=3,
  kv_heads=2,
  groups=2,
  head_dim=12,
  mlp=48,
  context=64,
)
FAMILIES = {
  "qwen2": dataclasses.replace(TINY, qkv_bias=True, groups=3),
  "qwen3": dataclasses.replace(TINY, qk_norm=True, tied=False),
  "llama3": dataclasses.replace(
    TINY, rope=Rope(scaling="llama3", factor=8.0, original=16)
  ),
  "gemma3": dataclasses.replace(
    TINY,
    layers=7,
    activation="gelu",
    qk_norm=True,
    unit_offset=True,
    post_norm=True,
    embed_scale=True,
    window=5,
    global_every=6,
    local_rope=Rope(base=100.0),
    attention_softcap=20.0,
    logit_softcap=10.0,
  ),
}

# Out of jit each operation of the model would be compiled by itself.
apply = jax.jit(transformer.apply, static_argnums=(0, 6))


@functools.partial(jax.jit, static_argnums=(0, 1))
def noisy(cfg, seed=0):
  """Parameters with every bias and norm moved off its initial value."""
  params = transformer.init(cfg, jax.random.key(seed))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
  moved = [
    x + 0.1 * jax.random.normal(k, x.shape)
    for x, k in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(tree, moved)


def rows(n, T, seed=0):
  tokens = jax.random.randint(jax.random.key(seed), (n, T), 0, 64)
  positions = jnp.broadcast_to(jnp.arange(T)[None], (n, T))
  return tokens, positions, jnp.ones((n, T), jnp.int32)


@pytest.mark.parametrize(
  "family",
  [  # what the slow ones have of their own is no matter of the cache
    "qwen2",
    pytest.param("qwen3", marks=pytest.mark.slow),
    pytest.param("llama3", marks=pytest.mark.slow),
    "gemma3",
  ],
)
def test_prefill_and_decode_equal_the_whole_forward(family):
  cfg = FAMILIES[family]
  params = noisy(cfg)
  tokens, positions, segments = rows(2, 14)
  whole, _, _ = apply(cfg, params, tokens, positions, segments)
  cache = transformer.empty_cache(cfg, 2, 20)
  step = lambda t, p, c: apply(cfg, params, t, p, None, c)[:2]
  first, cache = step(tokens[:, :9], positions[:, :9], cache)
  parts = [first]
  for t in range(9, 14):
    one = slice(t, t + 1)
    out, cache = step(tokens[:, one], positions[:, one], cache)
    parts.append(out)
  gap = np.abs(np.concatenate(parts, 1) - whole).max()
  assert gap <= 1e-5, gap


@pytest.mark.parametrize("family", FAMILIES)
def test_packing_changes_nothing_and_leaks_nothing(family):
  """Documents of 5 and 7 tokens, packed and alone; the first one rewritten."""
  cfg = FAMILIES[family]
  params = noisy(cfg)
  tokens, _, _ = rows(1, 12)
  segments = jnp.array([[1] * 5 + [2] * 7])
  positions = jnp.array([[*range(5), *range(7)]])
  run = lambda t: apply(cfg, params, t, positions, segments)[0]
  packed = run(tokens)
  alone, _, _ = apply(
    cfg, params, tokens[:, 5:], positions[:, 5:], segments[:, 5:]
  )
  np.testing.assert_allclose(packed[:, 5:], alone, atol=1e-5)
  other = run(tokens.at[:, :5].set((tokens[:, :5] + 1) % 64))
  np.testing.assert_array_equal(other[:, 5:], packed[:, 5:])
  assert np.abs(other[:, :5] - packed[:, :5]).max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_matters(family):
  cfg = FAMILIES[family]
  tokens, positions, segments = rows(2, 14)

  def total(params):
    hidden, _, _ = apply(cfg, params, tokens, positions, segments)
    logits = jnp.einsum(
      "BTD,VD->BTV", hidden, transformer.unembedding(cfg, params)
    )
    return jnp.square(logits).sum()

  for path, grad in jax.tree_util.tree_leaves_with_path(
    jax.jit(jax.grad(total))(noisy(cfg))
  ):
    assert np.abs(grad).max() > 1e-8, path


@pytest.mark.parametrize("remat", ["elementwise", "everything"])
def test_remat_changes_no_gradient(remat):
  tokens, positions, segments = rows(2, 14)

  def grad(cfg):
    total = lambda p: apply(cfg, p, tokens, positions, segments)[0].sum()
    return jax.jit(jax.grad(total))(noisy(cfg))

  kept = grad(TINY)
  redone = grad(dataclasses.replace(TINY, remat=remat))
  for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(redone), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "layers, fewer",  # written out, where XLA finds some by itself, and a loop
  [pytest.param(3, 1, marks=pytest.mark.slow), (6, 2)],
)
def test_a_feed_forward_keeps_neither_act_nor_its_slope(
  layers, fewer, monkeypatch
):
  cfg = dataclasses.replace(TINY, mlp=1024, layers=layers)
  where = rows(4, 32)

  def held():
    total = lambda p: transformer.apply(cfg, p, *where)[0].sum()
    params = jax.eval_shape(functools.partial(noisy, cfg))
    program = jax.jit(jax.grad(total)).lower(params).compile()
    return program.memory_analysis().temp_size_in_bytes

  now = held()
  monkeypatch.setattr(jax, "checkpoint", lambda f, **_: f)
  wide = layers * 4 * 32 * cfg.mlp * 4  # bytes of one such array a layer
  assert held() - now > fewer * wide


def test_the_window_bounds_what_is_seen():
  cfg = dataclasses.replace(FAMILIES["gemma3"], layers=1)
  params = noisy(cfg)
  tokens, positions, segments = rows(1, 14)
  embed = params["embed_VD"]

  def last(embed):
    hidden, _, _ = apply(
      cfg, params | {"embed_VD": embed}, tokens, positions, segments
    )
    return jnp.square(hidden[:, -1]).sum()

  touched = np.abs(jax.jit(jax.grad(last))(embed)).sum(-1) > 0
  seen = set(np.asarray(tokens[0, -5:]).tolist())
  assert set(np.flatnonzero(touched).tolist()) == seen


def test_features_are_the_stream_behind_each_layer():
  params = noisy(TINY)
  tokens, positions, segments = rows(1, 6)
  out, _, kept = apply(
    TINY, params, tokens, positions, segments, None, ("hidden",)
  )
  assert kept["hidden"].shape == (3, 1, 6, 32)
  shorter = dataclasses.replace(TINY, layers=2)
  cut = params | {"layers": jax.tree.map(lambda x: x[:2], params["layers"])}
  _, _, fewer = apply(
    shorter, cut, tokens, positions, segments, None, ("hidden",)
  )
  np.testing.assert_array_equal(fewer["hidden"], kept["hidden"][:2])
  assert out.shape == (1, 6, 32)
  _, _, all_of_them = apply(
    TINY, params, tokens, positions, segments, None, transformer.FEATURES
  )
  assert {n: x.shape[3:] for n, x in all_of_them.items()} == {
    "hidden": (32,),
    "q": (TINY.kv_heads, TINY.groups, TINY.head_dim),
    "k": (TINY.kv_heads, TINY.head_dim),
    "v": (TINY.kv_heads, TINY.head_dim),
  }
  with pytest.raises(ValueError, match="no features"):
    apply(TINY, params, tokens, positions, segments, None, ("attention",))


def test_decoding_makes_few_temporaries():
  """At most a tenth of the cache: written in place, read a layer at a time.

  The CPU lays out one layer anew for its dot product; a cache that is carried
  through a scan would be copied whole.
  """
  cfg = dataclasses.replace(TINY, layers=16, head_dim=64)
  params = transformer.init(cfg, jax.random.key(0))
  cache = transformer.empty_cache(cfg, 8, 1024)
  size = sum(x.nbytes for x in jax.tree.leaves(cache))
  one = jnp.zeros((8, 1), jnp.int32)
  step = jax.jit(
    lambda c, t: apply(cfg, params, t, t, None, c)[:2],
    donate_argnums=0,
  )
  memory = step.lower(cache, one).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 0.1 * size


def test_an_unknown_preset_or_switch_is_named():
  with pytest.raises(ValueError, match=r"no preset 'qwen9'.*qwen3_8b"):
    presets.make("qwen9")
  with pytest.raises(ValueError, match="widht"):
    presets.make("tiny", widht=3)


def test_rope_scalings():
  """Low frequencies are divided, high ones kept, as each paper has it."""
  plain = rope.frequencies(Rope(base=500_000.0), 64)
  for name in ("llama3", "yarn"):
    scaled = rope.frequencies(
      Rope(base=500_000.0, scaling=name, factor=8.0, original=8192), 64
    )
    np.testing.assert_allclose(scaled[0], plain[0])
    np.testing.assert_allclose(scaled[-1], plain[-1] / 8)
    ratio = plain / scaled
    assert np.all(np.diff(ratio) >= -1e-12) and ratio.max() <= 8 + 1e-9
  linear = rope.frequencies(Rope(500_000.0, "linear", 8.0), 64)
  np.testing.assert_allclose(linear, plain / 8)
  assert rope.magnitude(Rope(scaling="yarn", factor=4.0)) == pytest.approx(
    1.1386294361
  )
  assert rope.magnitude(Rope(scaling="llama3", factor=4.0)) == 1
  with pytest.raises(ValueError, match="dynamic"):
    rope.frequencies(Rope(scaling="dynamic"), 64)  # type: ignore[arg-type]


def test_rotation_depends_on_distance_alone():
  q, k = jax.random.normal(jax.random.key(0), (2, 8))
  freq = rope.frequencies(Rope(), 8)

  def score(at, to):
    turn = lambda x, p: rope.rotate(x, jnp.cos(p * freq), jnp.sin(p * freq))
    return turn(q, at) @ turn(k, to)

  np.testing.assert_allclose(score(9, 4), score(105, 100), rtol=1e-4)
  assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_float64_is_not_quietly_fp32():
  wide = dataclasses.replace(TINY, dtype="float64")
  tokens, positions, segments = rows(1, 4)
  with pytest.raises(ValueError, match="float64, which needs JAX_ENABLE_X64"):
    apply(wide, {}, tokens, positions, segments)
