"""DPO and CogPO: TRL's numbers, pairs packed in rows, a beta a pair."""

import importlib
import json
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.preferences
from research.preferences import cogpo, dpo
from research.types import Batch, Pairs, Policy
from tests.conftest import GOLDEN
from tests.oracle import drawn

MODULES = [
  importlib.import_module(f"research.preferences.{m.name}")
  for m in pkgutil.iter_modules(research.preferences.__path__)
]


def batch(lengths, T):
  """Answers of `lengths` (a list a row), one token of prompt before each."""
  B = len(lengths)
  positions, ids, weights = (np.zeros((B, T)) for _ in range(3))
  for b, row in enumerate(lengths):
    at = 0
    for k, n in enumerate(row):
      positions[b, at : at + n + 1] = range(n + 1)
      ids[b, at : at + n + 1] = k + 1
      weights[b, at : at + n] = 1
      at += n + 1
  whole = lambda x: jnp.asarray(x.astype(int))
  return Batch(
    whole(0 * ids), jnp.asarray(weights), whole(positions), whole(ids)
  )


def spread(lengths, T, values):
  """Values of each answer's tokens, 9 elsewhere."""
  out = np.full((len(lengths), T), 9.0)
  rest = iter(values)
  for b, row in enumerate(lengths):
    at = 0
    for n in row:
      out[b, at : at + n] = next(rest)[:n]
      at += n + 1
  return jnp.asarray(out)


def case(one, other, T, betas=None):
  """(Pairs, policy of the chosen, of the rejected) of three fixed pairs."""
  now, ref, _ = drawn.pairs()
  beta_BT = None
  if betas is not None:
    beta_BT = spread(one, T, [[b] * 5 for b in betas])
  pairs = Pairs(
    batch(one, T),
    batch(other, T),
    spread(one, T, ref[:3]),
    spread(other, T, ref[3:]),
    beta_BT,
  )
  said = lambda x: Policy(x, jnp.zeros_like(x))
  first, second = spread(one, T, now[:3]), spread(other, T, now[3:])
  return pairs, said(first), said(second)


APART = ([[2], [5], [3]], [[4], [1], [5]], 6)
PACKED = ([[2, 5], [3]], [[4, 1], [5]], 11)


def slopes(module, layout, betas=None, **args):
  """(mean loss, {answer: gradient of its tokens}, metrics)."""
  pairs, first, second = case(*layout, betas)

  def mean(a, b):
    policies = (Policy(x, jnp.zeros_like(x)) for x in (a, b))
    total, count, metrics = module.loss(*policies, pairs, **args)
    return total / count, metrics

  (value, metrics), found = jax.jit(
    jax.value_and_grad(mean, (0, 1), has_aux=True)
  )(first.logprobs_BT, second.logprobs_BT)
  rows = []
  for slope, lengths in zip(found, layout[:2], strict=True):
    slope = np.array(slope)
    for b, row in enumerate(lengths):
      at = 0
      for n in row:
        rows.append(np.pad(slope[b, at : at + n], (0, 5 - n)))
        slope[b, at : at + n] = 0
        at += n + 1
    assert not slope.any()
  return value, np.array(rows), metrics


@pytest.mark.parametrize("layout", [APART, PACKED])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_equals_trl(beta, layout):
  said = json.loads((GOLDEN / "trl_algorithms.json").read_text())[f"dpo_{beta}"]
  with jax.enable_x64(True):
    value, slope, _ = slopes(dpo, layout, beta=beta)
    np.testing.assert_allclose(value, said["loss"], rtol=1e-6)
    np.testing.assert_allclose(slope, said["gradient"][0], atol=1e-9)


@pytest.mark.parametrize("layout", [APART, PACKED])
def test_cogpo_has_a_beta_a_pair(layout):
  """By the formula, a pair at a time; with one beta for all it is DPO."""
  betas = np.array([0.1, 0.2, 0.5])
  now, ref, mask = drawn.pairs()
  h = (mask * (now - ref)).sum(-1)
  h = h[:3] - h[3:]
  with jax.enable_x64(True):
    value, slope, metrics = slopes(cogpo, layout, betas)
    wanted = np.log1p(np.exp(-betas * h))
    np.testing.assert_allclose(value, np.mean(wanted), rtol=1e-12)
    by_pair = -betas / (1 + np.exp(betas * h)) / 3
    np.testing.assert_allclose(slope[:3, 0], by_pair, rtol=1e-12)
    np.testing.assert_allclose(slope[3:, 0], np.negative(by_pair), rtol=1e-12)
    assert float(metrics["accuracy"][0]) == (h > 0).sum()
    same, _, _ = slopes(cogpo, layout, (0.3,) * 3)
    plain, _, _ = slopes(dpo, layout, beta=0.3)
    np.testing.assert_allclose(same, plain, rtol=1e-12)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_the_policy_that_is_the_reference_knows_no_preference(module):
  pairs, _, _ = case(*PACKED, (0.1, 0.2, 0.5))
  said = lambda x: Policy(x, jnp.zeros_like(x))
  total, count, metrics = module.loss(
    said(pairs.ref_chosen_BT), said(pairs.ref_rejected_BT), pairs
  )
  assert float(count) == 3
  np.testing.assert_allclose(total / count, np.log(2), rtol=1e-6)
  assert all(len(pair) == 2 for pair in metrics.values())


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_what_is_no_answer_weighs_nothing(module):
  """NaN beside the answers; a pair without weights leaves sum and count."""
  pairs, first, second = case(*PACKED, (0.1, 0.2, 0.5))
  hide = lambda x: jnp.where(pairs.chosen.weights_BT > 0, x, jnp.nan)
  said = Policy(hide(first.logprobs_BT), first.entropy_BT)
  plain = module.loss(first, second, pairs)
  np.testing.assert_array_equal(module.loss(said, second, pairs)[0], plain[0])
  silent = pairs.chosen.weights_BT.at[1].set(0)
  fewer = pairs.replace(chosen=pairs.chosen.replace(weights_BT=silent))
  total, count, _ = module.loss(first, second, fewer)
  assert float(count) == 2 and float(total) < float(plain[0])


def test_what_is_missing_is_named():
  pairs, first, second = case(*APART)
  with pytest.raises(ValueError, match="beta_BT"):
    cogpo.loss(first, second, pairs)
  bare = pairs.replace(ref_rejected_BT=None)
  with pytest.raises(ValueError, match="reference's log-probabilities"):
    dpo.loss(first, second, bare)
