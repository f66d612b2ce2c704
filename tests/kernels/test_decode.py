"""decode_attention against fp64, whole rows, and interpreters that see DMA."""

import functools
import types

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret import (
  interpret_pallas_call as warps,
)
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu

import kernels
from kernels import decode, decode_hopper, decode_tpu
from kernels.decode import decode_attention
from tests.kernels.copies import STRICT, hasty, raced

jitted = functools.partial(
  jax.jit, static_argnames=("softcap", "splits", "return_lse")
)
RUNS = {
  "reference": jitted(functools.partial(decode_attention, impl="reference")),
  "xla": jitted(functools.partial(decode_attention, impl="xla")),
  "tpu": jitted(
    functools.partial(decode_attention, impl="tpu", interpret=True)
  ),
}


def draw(rng, B=4, S=200, K=2, G=2, H=128, dtype=jnp.float32, size=1.0):
  """Queries, keys, values, and lengths: a full row, an empty one, a first."""
  shapes = (B, K, G, H), (B, S, K, H), (B, S, K, H)
  q, k, v = (jnp.asarray(rng.standard_normal(s), dtype) for s in shapes)
  lengths = np.array([S, 0, 1, *rng.integers(1, S + 1, B - 3)])
  return q * dtype(size**0.5), k * dtype(size**0.5), v, lengths


def poisoned(x, lengths):
  """The cache with NaN wherever no row has written."""
  beyond = np.arange(x.shape[1])[None] >= lengths[:, None]
  return jnp.where(beyond[..., None, None], jnp.nan, x)


def oracle(q, k, v, lengths, window=None, softcap=None, dtype=np.float64):
  """o and lse a head at a time: in fp64, or as `dtype` with sums in fp32."""
  sums = np.float64 if dtype == np.float64 else np.float32
  number = lambda x: np.asarray(np.asarray(x, dtype), sums)
  q, k, v = number(q), number(k), number(v)
  o, lse = np.zeros(q.shape), np.full(q.shape[:-1], -np.inf)
  for b, h, g in np.ndindex(*q.shape[:-1]):
    low = 0 if window is None else max(0, lengths[b] - window)
    s = number(k[b, low : lengths[b], h] @ q[b, h, g])
    s = number(s * q.shape[-1] ** -0.5)
    if len(s):
      s = number(softcap * np.tanh(s / softcap)) if softcap else s
      p = number(np.exp(s - s.max()))
      lse[b, h, g] = s.max() + number(np.log(number(p.sum())))
      o[b, h, g] = number(number(p / p.sum()) @ v[b, low : lengths[b], h])
  return o, lse


def distance(x, exact):
  """||x - exact|| over what is finite in `exact`."""
  x = np.where(np.isneginf(exact), 0, np.asarray(x, np.float64))
  return np.linalg.norm(x - np.where(np.isneginf(exact), 0, exact))


def compare(run, q, k, v, lengths, **kwargs):
  """||kernel - fp64|| <= 2 ||naive - fp64|| + eps, for o and lse."""
  rule = {x: kwargs[x] for x in ("window", "softcap") if x in kwargs}
  exact = oracle(q, k, v, lengths, **rule)
  plain = oracle(q, k, v, lengths, dtype=q.dtype, **rule)
  k, v = poisoned(k, lengths), poisoned(v, lengths)
  outs = run(q, k, v, lengths, return_lse=True, **kwargs)
  assert outs[0].dtype == q.dtype and outs[1].dtype == jnp.float32
  for out, other, ref in zip(outs, plain, exact, strict=True):
    np.testing.assert_array_equal(np.isneginf(out), np.isneginf(ref))
    limit = 2 * distance(other, ref) + 1e-5 * distance(np.zeros_like(ref), ref)
    assert distance(out, ref) <= limit


SHAPES = [  # K, G, H: each view of the cache, with heads that need padding
  (2, 4, 128),
  (3, 1, 128),
  (8, 2, 64),
  (1, 8, 80),
  *(
    pytest.param(shape, marks=pytest.mark.slow)
    for shape in ((1, 1, 72), (4, 2, 96), (1, 8, 128), (2, 1, 256))
  ),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("impl", RUNS)
def test_error_is_that_of_bf16(impl, shape):
  K, G, H = shape
  args = draw(np.random.default_rng(0), K=K, G=G, H=H, dtype=jnp.bfloat16)
  compare(RUNS[impl], *args)


@pytest.mark.parametrize("size", [1, 4, 10])
@pytest.mark.parametrize("impl", RUNS)
def test_large_logits_window_and_softcap(impl, size):
  rng = np.random.default_rng(1)
  args = draw(rng, dtype=jnp.bfloat16, size=size)
  compare(RUNS[impl], *args, window=70, softcap=20.0)
  args = draw(rng, size=size)
  compare(RUNS[impl], *args, window=129)


@pytest.mark.parametrize("impl", RUNS)
def test_an_outlier_key_and_a_short_cache(impl):
  rng = np.random.default_rng(2)
  q, k, v, lengths = draw(rng, S=5, dtype=jnp.bfloat16)
  compare(RUNS[impl], q, k.at[0, 3].mul(50), v, lengths)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("impl", ["reference", "xla"])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_head(bad, impl, dtype):
  q, k, v, lengths = draw(np.random.default_rng(14), dtype=dtype)
  clean = RUNS[impl](q, k, v, lengths, return_lse=True)
  for k_bad, v_bad in (
    (k.at[0, 3, 0, 5].set(bad), v),
    (k, v.at[0, 3, 0, 5].set(bad)),
  ):
    out = RUNS[impl](q, k_bad, v_bad, lengths, return_lse=True)
    assert not np.isfinite(out[0][0, 0]).all()
    for x, y in zip(out, clean, strict=True):
      np.testing.assert_allclose(x[0, 1], y[0, 1], atol=1e-6)
      np.testing.assert_allclose(x[1:], y[1:], atol=1e-6)


@pytest.mark.parametrize("impl", ["xla", "tpu"])
def test_equals_the_last_row_of_full_attention(impl):
  q, k, v, _ = draw(np.random.default_rng(3), S=150, H=64)
  whole = kernels.flash_attention(
    q[:, None], k, v, window=40, q_offset=149, impl="reference"
  )[:, 0]
  one = RUNS[impl](q, k, v, np.full(4, 150), window=40)
  np.testing.assert_allclose(one, whole, atol=2e-6)


@hypothesis.settings(max_examples=10)
@hypothesis.given(
  lengths=st.lists(st.integers(0, 700), min_size=4, max_size=4),
  window=st.integers(1, 700),
  splits=st.sampled_from([1, 3]),
)
def test_splits_merge_to_the_whole(lengths, window, splits):
  rng = np.random.default_rng(4)
  q, k, v, _ = draw(rng, B=4, S=700)
  lengths = np.array(lengths)
  compare(RUNS["tpu"], q, k, v, lengths, window=window, splits=splits)
  compare(RUNS["xla"], q, k, v, lengths, window=window)


@pytest.mark.parametrize("impl", RUNS)
def test_lengths_and_windows_may_be_traced_and_differ(impl):
  q, k, v, lengths = draw(np.random.default_rng(5))
  run = jax.jit(lambda n, w: RUNS[impl](q, k, v, n, window=w))
  windows = np.array([9, 5, 500, 1])
  out = run(jnp.asarray(lengths), jnp.asarray(windows))
  for b in range(4):
    row = slice(b, b + 1)
    exact, _ = oracle(q[row], k[row], v[row], lengths[row], windows[b])
    np.testing.assert_allclose(out[row], exact, atol=2e-6)
  repeated = run(jnp.asarray(lengths), jnp.asarray(windows))
  np.testing.assert_array_equal(out, repeated)
  same = run(jnp.asarray(lengths), jnp.int32(9))
  np.testing.assert_array_equal(same[0], out[0])


def hopper(*args, **kwargs):
  """The kernel for Hopper, run by the interpreter, which looks for races."""
  device = jax.sharding.AbstractDevice(
    device_kind="NVIDIA H100 80GB HBM3", platform="gpu", num_cores=8
  )
  warps.gpu_callbacks.reset_gpu_interpret_mode_state()
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
  how = plgpu.InterpretGPUParams(detect_races=True)
  with jax.sharding.use_abstract_mesh(mesh):
    out = decode_attention(*args, impl="hopper", interpret=how, **kwargs)
    jax.block_until_ready(out)
  assert not warps.get_races().races_found
  return out


@pytest.mark.parametrize(
  "shape, options",
  [
    ((1, 2, 64), {}),
    ((2, 3, 80), {"splits": 2, "window": 100, "softcap": 5.0}),
    pytest.param((1, 1, 256), {"window": 30}, marks=pytest.mark.slow),
  ],
)
def test_hopper(shape, options):
  K, G, H = shape
  rng = np.random.default_rng(11)
  compare(hopper, *draw(rng, K=K, G=G, H=H, dtype=jnp.bfloat16), **options)


def test_hopper_refuses_what_it_cannot_multiply():
  for case in (
    draw(np.random.default_rng(0)),
    draw(np.random.default_rng(0), G=65, dtype=jnp.bfloat16),
  ):
    with pytest.raises(ValueError, match="impl='hopper' takes"):
      decode_attention(*case, impl="hopper")


def test_a_missing_barrier_is_caught(monkeypatch):
  """Every wait but the copier's for a free slot is dropped."""
  monkeypatch.setattr(decode_hopper.plgpu, "barrier_wait", lambda *_: None)
  case = draw(np.random.default_rng(12), K=1, H=64, dtype=jnp.bfloat16)
  with pytest.raises(AssertionError):
    compare(hopper, *case)


def test_xla_works_on_a_block_of_the_cache_at_once():
  q, k, v, lengths = draw(np.random.default_rng(6), S=5000)
  compiled = RUNS["xla"].lower(q, k, v, jnp.asarray(lengths)).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < k.nbytes // 2


@pytest.mark.parametrize(
  "platform, dtype, G, chosen",
  [
    ("cpu", jnp.bfloat16, 2, "xla"),
    ("tpu", jnp.float32, 2, "tpu"),
    ("hopper", jnp.bfloat16, 2, "hopper"),
    ("hopper", jnp.float32, 2, "xla"),
    ("hopper", jnp.bfloat16, 65, "xla"),
    ("ampere", jnp.bfloat16, 2, "xla"),
  ],
)
def test_the_platform_decides(platform, dtype, G, chosen, monkeypatch):
  gpu = {"hopper": "9.0", "ampere": "8.0"}
  device = types.SimpleNamespace(
    platform="gpu" if platform in gpu else platform
  )
  if platform in gpu:
    device.compute_capability = gpu[platform]
  monkeypatch.setattr(jax, "devices", lambda: [device])
  assert decode._choose(None, jnp.zeros((1, 1, G, 64), dtype)) == chosen
  assert decode._choose("xla", jnp.zeros((1, 1, G, 64), dtype)) == "xla"


@pytest.mark.parametrize(
  "shape",
  [
    (2, 2, 128),
    pytest.param((1, 2, 128), marks=pytest.mark.slow),
    pytest.param((2, 2, 64), marks=pytest.mark.slow),
  ],
)
def test_copies_are_waited_for(shape, monkeypatch):
  """Several blocks a row, from row to row, an empty row between them."""
  monkeypatch.setattr(decode_tpu, "BLOCK_BYTES", 2**16)
  K, G, H = shape
  q, k, v, _ = draw(np.random.default_rng(7), B=3, S=300, K=K, G=G, H=H)
  run = functools.partial(decode_attention, impl="tpu", interpret=STRICT)
  compare(run, q, k, v, np.array([300, 0, 140]), splits=2)
  assert not raced()


def test_a_missing_wait_is_caught(monkeypatch):
  """The plain interpreter does not see it: the strict one must."""
  monkeypatch.setattr(pltpu, "make_async_copy", hasty(pltpu.make_async_copy))
  q, k, v, lengths = draw(np.random.default_rng(8))
  exact, _ = oracle(q, k, v, lengths)
  call = lambda how: decode_attention(
    q, k, v, lengths, impl="tpu", interpret=how
  )
  np.testing.assert_allclose(call(True), exact, atol=2e-6)
  out = call(STRICT)
  caught = raced() or not np.allclose(out, exact)
  assert caught


def test_a_wrong_edge_is_caught(monkeypatch):
  """An off-by-one in what a block sees must not pass `compare`."""
  bounds = decode_tpu._work
  wrong = lambda view, first, end, splits: bounds(
    view, first, jnp.maximum(end - 1, 0), splits
  )
  monkeypatch.setattr(decode_tpu, "_work", wrong)
  args = draw(np.random.default_rng(9), dtype=jnp.bfloat16)
  with pytest.raises(AssertionError):
    compare(RUNS["tpu"], *args)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"q_BKGH": jnp.zeros((3, 2, 128))}, r"q_BKGH.*\(3, 2, 128\)"),
    ({"k_BSKH": jnp.zeros((3, 200, 3, 128))}, r"k_BSKH.*200, 3.*2, 2, 128"),
    ({"v_BSKH": jnp.zeros((3, 99, 2, 128))}, r"v_BSKH.*99.*200"),
    (
      {"v_BSKH": jnp.zeros((3, 200, 2, 128), jnp.bfloat16)},
      "v_BSKH.*bfloat16",
    ),
    ({"lengths_B": np.zeros(4, int)}, r"lengths_B.*\(4,\).*\(3, 2, 2, 128"),
    ({"lengths_B": np.zeros(3)}, "lengths_B.*float"),
    ({"lengths_B": np.array([0, 201, 3])}, r"lengths_B.*201.*200"),
    ({"lengths_B": np.array([0, -1, 3])}, r"lengths_B.*-1"),
    ({"window": np.ones(2, int)}, r"window.*\(2,\)"),
    ({"window": 1.5}, "window.*float"),
    ({"splits": 0}, "splits is 0"),
    ({"impl": "cuda"}, "impl is 'cuda'"),
  ],
)
def test_arguments_are_checked(change, message):
  q, k, v, lengths = draw(np.random.default_rng(10), B=3)
  args = {"q_BKGH": q, "k_BSKH": k, "v_BSKH": v, "lengths_B": lengths} | change
  with pytest.raises(ValueError, match=message):
    decode_attention(**args)


@pytest.mark.parametrize("impl", ["xla", "tpu"])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nobody_asks_or_nothing_is_held(shape, impl):
  B, S = shape
  q, k = jnp.zeros((B, 2, 2, 128)), jnp.zeros((B, S, 2, 128))
  o, lse = decode_attention(
    q, k, k, np.zeros(B, int), impl=impl, return_lse=True
  )
  assert o.shape == q.shape and not o.any() and np.isneginf(lse).all()


def test_fp16_is_refused_by_the_tpu_kernel():
  q, k = jnp.zeros((1, 2, 2, 128)), jnp.zeros((1, 8, 2, 128))
  q, k = q.astype(jnp.float16), k.astype(jnp.float16)
  with pytest.raises(ValueError, match="q is float16"):
    decode_attention(q, k, k, np.ones(1, int), impl="tpu")
  with pytest.raises(ValueError, match="q is float16"):
    kernels.flash_attention(q[:, None], k, k, impl="tpu")
