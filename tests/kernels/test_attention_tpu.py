"""The TPU kernels in the interpreters: numerics, what is skipped, copies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import attention_tpu, mask, tiles_tpu
from kernels.mask import Blocks, Limits, Rule
from tests.kernels.copies import STRICT, hasty, raced

NONE = Limits()
NAMES = "o", "lse", "dq", "dk", "dv"
SMALL = Blocks(128, 128, 128, 128)


def draw(B=1, T=256, S=256, K=1, G=1, H=32, scale=1.0, dtype=jnp.bfloat16):
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  q_BTKGH = normal(B, T, K, G, H) * scale
  do_BTKGH = normal(B, T, K, G, H)
  return q_BTKGH, normal(B, S, K, H), normal(B, S, K, H), do_BTKGH


def rule_of(H=32, **how):
  return Rule(**{"causal": True, "scale": H**-0.5, "blocks": SMALL, **how})


def plain(q_BTKGH, k_BSKH, v_BSKH, do_BTKGH, dlse_BTKG, rule, limits, dtype):
  """Everything by NumPy, products of operands rounded to `dtype`.

  float64 is the oracle; bfloat16 is what a naive bf16 attention rounds, scores
  in fp32 and weights in bf16 before their products.
  """
  cut = lambda x: np.asarray(jnp.asarray(x, dtype), np.float64)
  rounded = cut if dtype == jnp.bfloat16 else lambda x: x
  q, k, v, do = (
    np.asarray(x, np.float64) for x in (q_BTKGH, k_BSKH, v_BSKH, do_BTKGH)
  )
  T, S = q.shape[1], k.shape[1]
  seen = np.asarray(mask.visible(T, S, rule, limits))[:, None, None]
  s = np.einsum("btkgh,bskh->bkgts", q, k) * rule.scale
  slope = 1.0
  if rule.softcap is not None:
    bent = np.tanh(s / rule.softcap)
    s, slope = rule.softcap * bent, 1 - bent * bent
  top = np.where(seen, s, -np.inf).max(-1, keepdims=True)
  p = np.where(seen, np.exp(s - np.where(np.isinf(top), 0, top)), 0)
  total = p.sum(-1, keepdims=True)
  some = np.where(total > 0, total, 1)
  p = p / some
  lse = np.where(total > 0, top + np.log(some), -np.inf)[..., 0]
  o = rounded(np.einsum("bkgts,bskh->btkgh", rounded(p), v))
  delta = (do * o).sum(-1) - dlse_BTKG
  dp = np.einsum("btkgh,bskh->bkgts", do, v)
  ds = p * (dp - delta.transpose(0, 2, 3, 1)[..., None]) * slope * rule.scale
  ds = rounded(ds)
  dq = rounded(np.einsum("bkgts,bskh->btkgh", ds, k))
  dk = rounded(np.einsum("bkgts,btkgh->bskh", ds, q))
  dv = rounded(np.einsum("bkgts,btkgh->bskh", rounded(p), do))
  return (o, lse.transpose(0, 3, 1, 2), dq, dk, dv), delta


def ours(operands, dlse_BTKG, rule, limits=NONE, interpret=True):
  """Returns (o, lse, dq, dk, dv) of the kernels, and each pass's races."""
  found = []

  def note(call, *xs):
    # A function of this call's own, so that a planted bug is traced anew.
    run = jax.jit(lambda limits, *xs: call(*xs, rule, limits, interpret))
    out = jax.block_until_ready(run(limits, *xs))
    found.append(raced())
    return out

  o_BTKGH, lse_BTKG = note(attention_tpu.forward, *operands[:3])
  o32, do32 = (np.asarray(x, np.float32) for x in (o_BTKGH, operands[3]))
  delta_BTKG = jnp.asarray((o32 * do32).sum(-1) - dlse_BTKG, jnp.float32)
  gradients = note(attention_tpu.backward, *operands, lse_BTKG, delta_BTKG)
  return (o_BTKGH, lse_BTKG, *gradients), found


def excess(operands, rule, limits=NONE):
  """Returns each output's error over what is allowed: 2 naive ones and dust."""
  dlse_BTKG = np.random.default_rng(1).normal(size=operands[0].shape[:-1])
  exact, _ = plain(*operands, dlse_BTKG, rule, limits, np.float64)
  naive, _ = plain(*operands, dlse_BTKG, rule, limits, jnp.bfloat16)
  dlse_BTKG = jnp.asarray(dlse_BTKG, jnp.float32)
  got, _ = ours(operands, dlse_BTKG, rule, limits)
  ratios = {}
  for name, x, y, z in zip(NAMES, got, exact, naive, strict=True):
    x, finite = np.asarray(x, np.float64), np.isfinite(y)
    assert (np.isfinite(x) == finite).all(), name
    norm = lambda d: np.linalg.norm(d[finite])
    allowed = 2 * norm(z - np.where(finite, y, 0)) + 1e-5 * (1 + norm(y))
    ratios[name] = (
      norm(np.where(finite, x, 0) - np.where(finite, y, 0)) / allowed
    )
  return ratios


def segments(B, T):
  ids_BT = np.sort(np.random.default_rng(2).integers(1, 5, (B, T)), 1)
  return jnp.asarray(ids_BT, jnp.int32)


CASES = {
  "gqa, odd T and S": ({"T": 200, "S": 333, "K": 2, "G": 4}, {}, {}),
  "logits of 10": ({"H": 64, "scale": 10}, {}, {}),
  "one head, H=80": ({"T": 130, "S": 130, "H": 80, "G": 3}, {}, {}),
  "H=256, a window, a softcap": (
    {"H": 256, "T": 200, "S": 300},
    {"window": 70, "softcap": 4.0},
    {},
  ),
  "not causal, behind and empty": (
    {"T": 300, "S": 200},
    {"causal": False, "window": 50, "q_offset": 150},
    {},
  ),
  "tiles of its own choice": (
    {"T": 300, "S": 1100, "G": 2},
    {"q_offset": 800, "blocks": None},
    {},
  ),
  "rows before all keys": ({"T": 300}, {"q_offset": -150}, {}),
  "traced": ({"B": 2}, {}, {"window_B": [30, 999], "q_offset_B": [0, -140]}),
  "packed": ({"B": 2, "T": 300, "S": 300, "G": 2}, {}, "packed"),
}


@pytest.mark.parametrize("name", CASES)
def test_error_is_that_of_rounding(name):
  sizes, how, traced = CASES[name]
  operands = draw(**sizes)
  B, T = operands[0].shape[:2]
  limits = NONE
  if traced == "packed":
    limits = Limits(None, None, segments(B, T), segments(B, T))
  elif traced:
    limits = Limits(**{k: jnp.asarray(v) for k, v in traced.items()})
  rule = rule_of(H=operands[0].shape[-1], **how)
  ratios = excess(operands, rule, limits)
  assert max(ratios.values()) <= 1, ratios


def test_fp32_is_exact_to_fp32():
  operands = draw(dtype=jnp.float32, T=200, G=2)
  rule, zero = rule_of(), jnp.zeros(operands[0].shape[:-1])
  exact, _ = plain(*operands, np.asarray(zero), rule, NONE, np.float64)
  for x, y in zip(ours(operands, zero, rule)[0], exact, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_a_wrong_edge_is_caught(monkeypatch):
  """Negative control: a mask that lets each query see one key too many."""
  right = attention_tpu._visible

  def wrong(plan, entry, bounds, *rest):
    return right(plan, entry, (bounds[0], bounds[1] + 1), *rest)

  monkeypatch.setattr(attention_tpu, "_visible", wrong)
  ratios = excess(draw(), rule_of())
  assert min(ratios[name] for name in ("o", "dq", "dk", "dv")) > 1


def far(x_BSKH, first, last):
  return x_BSKH.at[:, first:last].set(jnp.nan)


@pytest.mark.parametrize("packed", [False, True])
def test_what_no_query_sees_is_not_read(packed):
  """NaN fills the blocks of keys that are to be skipped; nothing shows it."""
  q_BTKGH, k_BSKH, v_BSKH, do_BTKGH = draw(T=128, S=512)
  rule, limits = rule_of(window=128, q_offset=256), NONE
  if packed:
    rule = rule_of(causal=False)
    ids_BS = jnp.repeat(jnp.arange(1, 5), 128)[None]
    limits = Limits(None, None, jnp.full((1, 128), 3), ids_BS)
  hole = (0, 128) if not packed else (0, 256)
  dirty = [far(far(x, *hole), 384, 512) for x in (k_BSKH, v_BSKH)]
  zero = jnp.zeros(q_BTKGH.shape[:-1])
  clean, _ = ours((q_BTKGH, k_BSKH, v_BSKH, do_BTKGH), zero, rule, limits)
  got, _ = ours((q_BTKGH, *dirty, do_BTKGH), zero, rule, limits)
  for x, y in zip(got, clean, strict=True):
    np.testing.assert_array_equal(x, y)


def test_what_is_seen_is_read():
  """Negative control of the one above: NaN in a live block does show."""
  q_BTKGH, k_BSKH, v_BSKH, do_BTKGH = draw(T=128, S=512)
  rule = rule_of(window=128, q_offset=256)
  operands = q_BTKGH, k_BSKH, far(v_BSKH, 128, 256), do_BTKGH
  got, _ = ours(operands, jnp.zeros(q_BTKGH.shape[:-1]), rule)
  assert np.isnan(np.asarray(got[0], np.float32)).any()


def steps(back=False, limits=NONE, T=1024, S=None, **how):
  like = jax.ShapeDtypeStruct((1, T, 1, 1, 32), jnp.bfloat16)
  keys = jax.ShapeDtypeStruct((1, S or T, 1, 32), jnp.bfloat16)
  rule = rule_of(**how)
  plan = tiles_tpu.choose(like, keys, rule, limits, back)
  return int(tiles_tpu.listed(plan, limits, back)[1])


@pytest.mark.parametrize("back", [False, True])
def test_only_live_tiles_are_listed(back):
  listed = functools.partial(steps, back)
  assert listed(causal=False) == 64
  assert listed() == 36
  assert listed(window=128) == 15
  assert listed(limits=Limits(window_B=jnp.asarray([128]))) == 15
  ids = jnp.repeat(jnp.arange(1, 9), 128)[None]
  assert listed(limits=Limits(None, None, ids, ids)) == 8


def test_too_many_tiles_are_refused():
  with pytest.raises(ValueError, match="tiles of 128 queries"):
    steps(T=1 << 17)
  with pytest.raises(ValueError, match="4096 of each fit"):
    steps(T=4097 * 128, S=128)


RACE_CASES = {
  "causal": ({"T": 384, "S": 384}, {}, False),
  "two blocks, again and again": ({"S": 384}, {"causal": False}, False),
  "packed": ({"B": 2}, {}, True),
  "more blocks than slots": ({"T": 640}, {"causal": False}, False),
}


def slow_copies(sizes, how, packed=False):
  """Returns ours, exact ones and races, where a copy is made when awaited."""
  operands = draw(H=8, dtype=jnp.float32, **sizes)
  B, T = operands[0].shape[:2]
  limits = NONE
  if packed:
    limits = Limits(None, None, segments(B, T), segments(B, T))
  rule, zero = rule_of(**how), np.zeros(operands[0].shape[:-1])
  exact, _ = plain(*operands, zero, rule, limits, np.float64)
  got, races = ours(operands, zero, rule, limits, STRICT)
  return got, exact, races


@pytest.mark.parametrize("name", RACE_CASES)
def test_copies_are_waited_for(name):
  got, exact, races = slow_copies(*RACE_CASES[name])
  assert races == [False, False]
  for x, y in zip(got, exact, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-4)


@pytest.mark.parametrize("missing", ["settle", "wait"])
def test_a_missing_wait_is_caught(missing, monkeypatch):
  """Negative control: dq read while it is written, or summed before it came."""
  running = attention_tpu._Running
  if missing == "settle":
    monkeypatch.setattr(running, "settle", lambda *_: None)
  else:
    monkeypatch.setattr(running, "read", hasty(running.read))
  got, exact, races = slow_copies({"S": 384}, {"causal": False})
  assert races[1] or not np.allclose(got[2], exact[2], atol=1e-3)


def test_runs_agree_bit_for_bit():
  operands = draw(T=300, S=300, G=2)
  zero = jnp.zeros(operands[0].shape[:-1])
  first, second = (ours(operands, zero, rule_of())[0] for _ in range(2))
  for x, y in zip(first, second, strict=True):
    np.testing.assert_array_equal(x, y)
