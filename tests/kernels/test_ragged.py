"""Ragged paged attention against fp64, separate calls, and watchful DMA."""

import functools
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from kernels import ragged, ragged_tpu
from kernels.ragged import empty_pages, ragged_paged_attention
from tests.kernels.copies import STRICT, hasty, raced

STATIC = ("softcap",)


def jitted(impl, interpret=False):
  """A new program, so that what a test plants is in it."""
  run = functools.partial(
    ragged_paged_attention, impl=impl, interpret=interpret
  )
  return jax.jit(run, static_argnames=STATIC)


RUNS = {
  "reference": jitted("reference"),
  "xla": jitted("xla"),
  "tpu": jitted("tpu", True),
}
MIXED = (1, 20, 0, 1, 37, 3), (40, 20, 13, 1, 90, 7)
DECODE = (1, 1, 1, 1), (40, 1, 13, 90)


class Case(NamedTuple):
  """What the function takes, in its order."""

  q: jax.Array
  k: jax.Array
  v: jax.Array
  pages: jax.Array
  table: np.ndarray
  lengths: np.ndarray
  starts: np.ndarray


def draw(rng, batch=MIXED, K=2, G=2, H=64, S=8, dtype=jnp.float32, **options):
  """A batch whose old tokens are drawn, and NaN wherever no token lies."""
  held, size = options.get("held", dtype), options.get("size", 1.0)
  tail, most = options.get("tail", 3), options.get("most", 0)
  tokens, lengths = (np.array(x) for x in batch)
  Q, B = tokens.sum() + tail, len(tokens)
  shapes = (Q, K, G, H), (Q, K, H), (Q, K, H)
  q, k, v = (rng.standard_normal(s) for s in shapes)
  most = most or -(-lengths.max() // S) + 1
  P = B * most + 2
  table = rng.permutation(P)[: B * most].reshape(B, most).astype(np.int32)
  pages = np.full(empty_pages(P, S, K, H, held).shape, np.nan)
  whole = jnp.issubdtype(held, jnp.integer)
  pages = np.zeros_like(pages) if whole else pages
  old = np.where(np.isfinite(pages), 99, pages)  # integers hold no NaN
  for b in range(B):
    for t in range(lengths[b] - tokens[b]):
      slot = rng.standard_normal(pages.shape[2:]) * (30 if whole else 1)
      old[table[b, t // S], t % S] = slot
    table[b, -(-lengths[b] // S) :] = -7
  starts = np.concatenate([[0], np.cumsum(tokens)]).astype(np.int32)
  q, k, v = (jnp.asarray(x, dtype) for x in (q * size, k, v))
  old = jnp.asarray(old, held)
  return Case(q, k, v, old, table, lengths.astype(np.int32), starts)


def gathered(case, pages, scales=None):
  """Keys and values of each sequence, [length, K, H], from written pages."""
  pages = np.asarray(pages.astype(jnp.float32), np.float64)
  _, K, _, H = case.q.shape
  S, half = pages.shape[1], pages.shape[-1] // 2
  for b, length in enumerate(case.lengths):
    names = case.table[b, : -(-length // S)]
    kv = pages[names].reshape(-1, *pages.shape[2:])[:length, :K]
    k, v = kv[..., :H], kv[..., half : half + H]
    if scales is not None:
      k, v = (
        x * np.asarray(s)[:, None] for x, s in zip((k, v), scales, strict=True)
      )
    yield k, v


def attend(case, pages, dtype, window=None, softcap=None, scales=None):
  """o [Q, K, G, H] in fp64, or each result as `dtype` with sums in fp32."""
  sums = np.float64 if dtype == np.float64 else np.float32
  number = lambda x: np.asarray(np.asarray(x, dtype), sums)
  o = np.zeros(case.q.shape)
  for b, (k, v) in enumerate(gathered(case, pages, scales)):
    own = slice(case.starts[b], case.starts[b + 1])
    q, k, v = number(case.q[own]), number(k), number(v)
    s = number(np.einsum("tkgh,skh->tkgs", q, k))
    s = number(s * q.shape[-1] ** -0.5)
    s = number(softcap * np.tanh(s / softcap)) if softcap else s
    at = len(k) - len(q) + np.arange(len(q))[:, None]
    seen = np.arange(len(k))[None] <= at
    if window is not None:
      seen &= np.arange(len(k))[None] > at - window
    s = np.where(seen[:, None, None], s, -np.inf)
    if len(q):
      p = number(np.exp(s - s.max(-1, keepdims=True)))
      p = number(p / p.sum(-1, keepdims=True))
      o[own] = number(np.einsum("tkgs,skh->tkgh", p, v))
  return o


def compare(run, case, **kwargs):
  """||kernel - fp64|| <= 2 ||naive - fp64|| + eps; returns (o, pages)."""
  o, pages = run(*case, **kwargs)
  rule = {x: y for x, y in kwargs.items() if x != "kv_scales"}
  rule["scales"] = kwargs.get("kv_scales")
  exact = attend(case, pages, np.float64, **rule)
  naive = attend(case, pages, case.q.dtype, **rule)
  limit = 2 * np.linalg.norm(naive - exact) + 1e-5 * np.linalg.norm(exact)
  assert o.dtype == case.q.dtype
  assert np.linalg.norm(np.asarray(o, np.float64) - exact) <= limit
  assert not np.any(o[case.starts[-1] :])
  return o, pages


def bits(x):
  return np.asarray(x).view(np.uint8)


@pytest.mark.parametrize(
  "shape",
  [
    (2, 4, 128),
    (1, 3, 80),
    *(
      pytest.param(shape, marks=pytest.mark.slow)
      for shape in ((2, 2, 64), (1, 8, 96), (8, 1, 64), (1, 1, 256))
    ),
  ],
)
@pytest.mark.parametrize("impl", RUNS)
def test_error_is_that_of_bf16(impl, shape):
  K, G, H = shape
  rng = np.random.default_rng(0)
  compare(RUNS[impl], draw(rng, K=K, G=G, H=H, dtype=jnp.bfloat16))


@pytest.mark.parametrize("impl", RUNS)
def test_large_logits_window_and_softcap(impl):
  rng = np.random.default_rng(1)
  for size in (4, 10):
    case = draw(rng, dtype=jnp.bfloat16, size=size)
    compare(RUNS[impl], case, window=11, softcap=20.0)
  compare(RUNS[impl], draw(rng), window=1)


@pytest.mark.parametrize("impl", RUNS)
def test_decode_alone(impl):
  """As many sequences as tokens: the kernels take another path."""
  case = draw(np.random.default_rng(2), DECODE, tail=0)
  o, pages = compare(RUNS[impl], case)
  again = RUNS[impl](*case)
  np.testing.assert_array_equal(o, again[0])
  np.testing.assert_array_equal(bits(pages), bits(again[1]))


@pytest.mark.parametrize("impl", RUNS)
def test_new_tokens_are_written_and_nothing_else(impl):
  case = draw(np.random.default_rng(3), S=4)
  _, pages = RUNS[impl](*case)
  expected = np.array(case.pages)
  _, K, _, H = case.q.shape
  S, half = expected.shape[1], expected.shape[-1] // 2
  for b, length in enumerate(case.lengths):
    own = range(case.starts[b], case.starts[b + 1])
    for t, at in zip(own, range(length - len(own), length), strict=True):
      slot = expected[case.table[b, at // S], at % S]
      slot[...] = 0
      slot[:K, :H], slot[:K, half : half + H] = case.k[t], case.v[t]
  np.testing.assert_array_equal(bits(pages), bits(expected))


@hypothesis.settings(max_examples=8)
@hypothesis.given(
  sequences=st.lists(
    st.tuples(st.integers(0, 24), st.integers(0, 60)), min_size=3, max_size=3
  ),
  window=st.integers(1, 90),
)
@pytest.mark.parametrize("impl", ["xla", "tpu"])
def test_a_batch_is_its_sequences_apart(impl, sequences, window):
  tokens = [n for n, _ in sequences]
  lengths = [n + old for n, old in sequences]
  rng = np.random.default_rng(4)
  case = draw(rng, (tokens, lengths), tail=72 - sum(tokens), most=12)
  o, pages = RUNS[impl](*case, window=window)
  for b in range(3):
    starts = np.clip(case.starts, case.starts[b], case.starts[b + 1])
    alone = case._replace(starts=starts)
    one, _ = RUNS["reference"](*alone, window=window)
    own = slice(starts[b], starts[b + 1])
    np.testing.assert_allclose(o[own], one[own], atol=3e-6)
  compare(lambda *_, **__: (o, pages), case, window=window)


@hypothesis.settings(max_examples=5)
@hypothesis.given(st.randoms(use_true_random=False))
@pytest.mark.parametrize("impl", ["xla", "tpu"])
def test_where_pages_lie_does_not_matter(impl, random):
  case = draw(np.random.default_rng(5))
  o, pages = RUNS[impl](*case)
  to = list(range(len(case.pages)))
  random.shuffle(to)
  to = np.array(to)
  used = case.table >= 0
  moved = case._replace(
    pages=jnp.zeros_like(case.pages).at[to].set(case.pages),
    table=np.where(used, to[np.maximum(case.table, 0)], 10**6),
  )
  other, moved_pages = RUNS[impl](*moved)
  np.testing.assert_array_equal(o, other)
  np.testing.assert_array_equal(bits(pages), bits(moved_pages[to]))


@pytest.mark.parametrize("impl", ["xla", "tpu"])
def test_a_prompt_in_chunks_is_the_prompt(impl):
  """Each chunk lies somewhere in a batch whose other tokens nobody owns."""
  case = draw(np.random.default_rng(6), ((40,), (40,)), tail=0)
  whole, pages = RUNS[impl](*case)
  held = case.pages
  for low, high, first in ((0, 24, 0), (24, 39, 7), (39, 40, 23)):
    own = slice(first, first + high - low)
    nan = lambda x: jnp.full((24, *x.shape[1:]), jnp.nan, x.dtype)
    part = [nan(x).at[own].set(x[low:high]) for x in case[:3]]
    starts = np.array([own.start, own.stop], np.int32)
    lengths = np.array([high], np.int32)
    o, held = RUNS[impl](*part, held, case.table, lengths, starts)
    np.testing.assert_allclose(o[own], whole[low:high], atol=2e-6)
    assert not np.any(o[:first]) and not np.any(o[own.stop :])
  np.testing.assert_array_equal(bits(held), bits(pages))


@pytest.mark.parametrize("impl", RUNS)
def test_sequences_may_share_pages(impl):
  """A common prompt of two full pages: as if each had its own copy."""
  case = draw(np.random.default_rng(13), ((1, 20), (17, 36)), tail=0)
  copied = case.pages.at[case.table[1, :2]].set(case.pages[case.table[0, :2]])
  table = case.table.copy()
  table[1, :2] = table[0, :2]
  o, _ = RUNS[impl](*case._replace(table=table))
  apart, _ = RUNS[impl](*case._replace(pages=copied))
  np.testing.assert_array_equal(o, apart)
  compare(RUNS[impl], case._replace(table=table))


@pytest.mark.parametrize("held", [jnp.int8, jnp.float8_e4m3fn, jnp.float8_e5m2])
@pytest.mark.parametrize("impl", RUNS)
def test_quantized_pages(impl, held):
  case = draw(np.random.default_rng(7), dtype=jnp.bfloat16, held=held)
  scales = jnp.array([[0.03, 0.04], [0.05, 0.02]])
  _, pages = compare(RUNS[impl], case, kv_scales=scales)
  for b, both in enumerate(gathered(case, pages, scales)):
    own = slice(case.starts[b], case.starts[b + 1])
    for x, given, scale in zip(both, (case.k, case.v), scales, strict=True):
      step = np.asarray(scale, np.float64)[:, None]
      new = np.asarray(given[own], np.float64)
      if held == jnp.int8:  # what is too large for 8 bits is cut
        new, error = np.clip(new, -127 * step, 127 * step), step / 2
      else:
        bits_held = jnp.finfo(held).nmant
        error = np.abs(new) / 2 ** (bits_held + 1) + 1e-4
      assert (np.abs(x[len(x) - len(new) :] - new) <= error * 1.01).all()


def test_pages_are_written_in_place():
  case = draw(np.random.default_rng(8), most=200)
  run = jax.jit(RUNS["xla"], donate_argnums=3)
  compiled = run.lower(*case).compile().memory_analysis()
  assert compiled.alias_size_in_bytes >= case.pages.nbytes
  assert compiled.temp_size_in_bytes < case.pages.nbytes // 2
  where = case.pages.unsafe_buffer_pointer()
  _, pages = run(*case)
  assert pages.unsafe_buffer_pointer() == where
  assert case.pages.is_deleted()


@pytest.mark.parametrize("impl", ["xla", "tpu"])
def test_many_blocks_of_keys_and_many_items(impl, monkeypatch):
  """Blocks of 16 keys and items of 16 queries, as long sequences have many."""
  for module in (ragged, ragged_tpu):
    monkeypatch.setattr(module, "KEYS", 16)
  monkeypatch.setattr(ragged_tpu, "ROWS", 32)
  monkeypatch.setattr(ragged, "QUERIES", 16)
  case = draw(np.random.default_rng(5))
  compare(jitted(impl, impl == "tpu"), case)
  compare(jitted(impl, impl == "tpu"), case, window=21)


@pytest.mark.parametrize("batch", [MIXED, DECODE])
def test_copies_are_waited_for(batch):
  case = draw(np.random.default_rng(9), batch, tail=0)
  compare(jitted("tpu", STRICT), case, window=50)
  assert not raced()


@pytest.mark.parametrize("which", ["ragged_write", "ragged_paged_attention"])
def test_a_missing_wait_is_caught(which, monkeypatch):
  """The plain interpreter does not see it: the strict one must."""
  make, call = pltpu.make_async_copy, ragged_tpu.pl.pallas_call
  now = []

  def named(kernel, **kwargs):
    def noted(*refs):
      now.append(kwargs["name"])
      return kernel(*refs)

    return call(noted, **kwargs)

  monkeypatch.setattr(
    pltpu, "make_async_copy", hasty(make, lambda: now[-1] != which)
  )
  monkeypatch.setattr(ragged_tpu.pl, "pallas_call", named)
  case = draw(np.random.default_rng(10), ((1, 9), (30, 9)), tail=0)
  good, _ = RUNS["xla"](*case)
  out, _ = jitted("tpu", True)(*case)
  np.testing.assert_allclose(out, good, atol=2e-6)
  out, _ = jitted("tpu", STRICT)(*case)
  assert raced() or not np.allclose(out, good)


@pytest.mark.parametrize("batch", [MIXED, DECODE])
def test_a_wrong_edge_is_caught(batch, monkeypatch):
  """A query that misses the first key it sees must not pass `compare`."""
  cut = ragged_tpu.cut

  def wrong(batch, queries):
    items = cut(batch, queries)
    return items._replace(first=jnp.minimum(items.first + 1, items.position))

  monkeypatch.setattr(ragged_tpu, "cut", wrong)
  case = draw(np.random.default_rng(11), batch, dtype=jnp.bfloat16)
  with pytest.raises(AssertionError):
    compare(jitted("tpu", True), case, window=11)
