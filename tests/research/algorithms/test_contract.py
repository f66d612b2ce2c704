"""Every algorithm of the folder: its contract, and what must not matter."""

import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.algorithms
from research import groups, surrogate
from tests.research.algorithms.rollouts import ALONE, ROWS, answers, packed

MODULES = [
  importlib.import_module(f"research.algorithms.{m.name}")
  for m in pkgutil.iter_modules(research.algorithms.__path__)
]
BY_NAME = {m.__name__.split(".")[-1]: m for m in MODULES}
every = pytest.mark.parametrize("module", MODULES, ids=list(BY_NAME))


def run(module, rollout, said):
  """(sum, denominator, metrics, gradient by the log-probabilities)."""
  advantage_BT = jax.jit(module.advantage)(rollout)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def total(now):
    policy = said.replace(logprobs_BT=now)
    value, *rest = module.loss(policy, rollout, advantage_BT)
    return value, rest

  (value, rest), slope = jax.jit(total)(jnp.asarray(said.logprobs_BT))
  return value, *rest, np.asarray(slope)


@every
def test_contract(module):
  rollout, said = packed()
  value, denominator, metrics, slope = run(module, rollout, said)
  assert value.shape == denominator.shape == () and denominator > 0
  assert all(len(pair) == 2 for pair in metrics.values())
  watched = {"entropy", "mismatch_kl", "ratio_outside", "kl"}
  watched |= {"ratio_min", "ratio_mean", "ratio_max"}
  assert watched <= set(metrics)
  assert not slope[rollout.mask_BT == 0].any() and slope.any()


@every
def test_what_was_not_sampled_is_not_seen(module):
  """Not even NaN."""
  rollout, said = packed()
  plain = run(module, rollout, said)
  hide = lambda x: np.where(rollout.mask_BT > 0, x, np.nan)
  names = ("logprobs_BT", "old_logprobs_BT", "ref_logprobs_BT", "process_BT")
  loud = {name: hide(getattr(rollout, name)) for name in names}
  again = run(
    module,
    rollout.replace(**loud),
    said.replace(logprobs_BT=hide(said.logprobs_BT)),
  )
  np.testing.assert_array_equal(plain[0], again[0])
  np.testing.assert_array_equal(plain[-1], again[-1])


@every
def test_a_group_of_equal_rewards_moves_nothing(module):
  """Rewards of 0.1, whose fp32 std is not 0; no reward a token; value 0."""
  rows = [[(*answer[:3], 0.1) for answer in row] for row in ROWS]
  rollout, said = packed(rows)
  zeros = np.zeros_like(rollout.mask_BT)
  rollout = rollout.replace(
    process_BT=zeros, values_BT=0.1 * (rollout.segments_BT > 0)
  )
  assert not run(module, rollout, said)[-1].any()


@every
def test_a_failed_grading_moves_no_other(module):
  rollout, said = packed()
  names = [(b, k) for b, row in enumerate(ROWS) for k in range(len(row))]
  lost = next((b, k) for b, k in names if ROWS[b][k][2] < 0)
  other = [list(row) for row in ROWS]
  other[lost[0]][lost[1]] = (*ROWS[lost[0]][lost[1]][:3], -77.0)
  changed, _ = packed(other)
  keep = lambda name: getattr(rollout, name)
  loud = rollout.replace(rewards_BT=changed.rewards_BT)
  assert np.any(keep("rewards_BT") != loud.rewards_BT)
  advantage = lambda x: np.asarray(module.advantage(x))
  np.testing.assert_array_equal(advantage(rollout), advantage(loud))
  fewer = [[x for x in row if x[2] >= 0] for row in ROWS]
  without, policy = packed(fewer)
  found, wanted = run(module, rollout, said), run(module, without, policy)
  np.testing.assert_allclose(found[0] / found[1], wanted[0] / wanted[1], 1e-6)


@every
def test_a_filtered_group_shifts_no_other_advantage(module):
  """REINFORCE alone has a baseline of other prompts, and says so."""
  ids = sorted({x[2] for row in ROWS for x in row} - {-1})
  rollout, _ = packed()
  wanted = np.asarray(module.advantage(rollout))
  for group in ids:
    gone = [
      [(*x[:2], -1 if x[2] == group else x[2], x[3]) for x in row]
      for row in ROWS
    ]
    fewer, _ = packed(gone)
    kept = np.isin(rollout.group_BT, [i for i in ids if i != group])
    kept &= rollout.mask_BT > 0
    found = np.asarray(module.advantage(fewer))
    same = np.allclose(found[kept], wanted[kept], rtol=1e-6)
    assert same == (module is not BY_NAME["reinforce"])


def own(rollout, x):
  """What an array holds of each answer, in an order of their own."""
  at = answers(rollout)
  key = lambda pair: tuple(rollout.old_logprobs_BT[pair[0], pair[1]])
  return [np.asarray(x)[b, t] for b, t in sorted(at, key=key)]


@every
@pytest.mark.parametrize(
  "layout",
  [
    {"rows": ALONE},
    {"rows": ROWS, "T": 14},
    {"rows": ROWS, "T": 12, "left": 3},
    {"rows": ROWS[::-1]},
    {"rows": [row[::-1] for row in ROWS]},
  ],
  ids=["unpacked", "padded", "left", "permuted", "turned"],
)
def test_how_rows_are_laid_out_does_not_matter(module, layout):
  with jax.enable_x64(True):
    (one, said), (two, also) = packed(), packed(**layout)
    wanted, found = run(module, one, said), run(module, two, also)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-12)
    for a, b in zip(own(one, wanted[3]), own(two, found[3]), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)
    for name, pair in wanted[2].items():
      np.testing.assert_allclose(found[2][name], pair, rtol=1e-10)


def in_parts(module, parts):
  """The mean loss of rows that are seen a few at a time."""
  rollout, said = packed()
  advantage_BT = jax.jit(module.advantage)(rollout)
  sums, loss = [], jax.jit(lambda *args: module.loss(*args))
  for at in np.array_split(np.arange(len(ROWS)), parts):
    cut = functools.partial(jax.tree.map, lambda x, at=at: x[at])
    args = cut(said), cut(rollout), cut(advantage_BT)
    sums.append(loss(*args)[:2])
  total, count = np.sum(sums, axis=0)
  return total / count


@every
def test_rows_in_parts_are_as_rows_at_once(module):
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      in_parts(module, 3), in_parts(module, 1), rtol=1e-12
    )


WEIGH, OF = surrogate.weigh, groups.of


def mean_of_means(rollout, aggregate):
  weight, count = WEIGH(rollout, aggregate)
  return weight / count, jnp.ones(())


def ungraded_among_the_others(rollout, scores, ids=None):
  return OF(rollout, scores, jnp.maximum(rollout.group_BT, 0))


def test_controls_planted_mistakes_are_noticed(monkeypatch):
  with monkeypatch.context() as m:
    m.setattr(surrogate, "weigh", mean_of_means)
    with pytest.raises(AssertionError):
      test_rows_in_parts_are_as_rows_at_once(BY_NAME["grpo"])
  with monkeypatch.context() as m:
    m.setattr(groups, "of", ungraded_among_the_others)
    with pytest.raises(AssertionError):
      test_a_failed_grading_moves_no_other(BY_NAME["rloo"])
