"""GRPO by its published numbers, its signs, and what it must not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.algorithms import grpo
from research.types import Policy, Trajectory


def trajectory(rewards, groups, lengths=None, T=4, **changes):
  """One segment a row: `lengths` sampled tokens behind one of prompt."""
  B = len(rewards)
  lengths = np.asarray(lengths or [T - 1] * B)
  t = np.arange(T)[None]
  inside = (t <= lengths[:, None]).astype(np.int32)
  whole = lambda x: jnp.asarray(np.repeat(np.asarray(x)[:, None], T, 1))
  fields = {
    "tokens_BT": jnp.zeros((B, T), jnp.int32),
    "positions_BT": jnp.asarray(t * inside),
    "segments_BT": jnp.asarray(inside),
    "mask_BT": jnp.asarray((t < lengths[:, None]).astype(np.float32)),
    "logprobs_BT": jnp.zeros((B, T)),
    "rewards_BT": whole(np.asarray(rewards, np.float32)) * inside,
    "group_BT": whole(np.asarray(groups, np.int32)),
    "truncated_BT": jnp.zeros((B, T)),
    "version_BT": jnp.zeros((B, T), jnp.int32),
  }
  return Trajectory(**fields | changes)


def first(advantage_BT):
  return np.asarray(advantage_BT)[:, 0]


def test_known_advantages():
  rollout = trajectory([1, 0, 0, 0], [0] * 4)
  scaled = first(grpo.advantage(rollout, delta=0.0))
  np.testing.assert_allclose(scaled, [1.732051] + [-0.577350] * 3, rtol=1e-5)
  plain = first(grpo.advantage(rollout, normalize=False))
  np.testing.assert_allclose(plain, [0.75, -0.25, -0.25, -0.25])


def test_equal_rewards_give_exactly_zero():
  """Eight fp32 rewards of 0.1 have a std of 7.5e-9, not of 0."""
  rollout = trajectory([0.1] * 8, [0] * 8)
  np.testing.assert_array_equal(grpo.advantage(rollout), 0)
  np.testing.assert_array_equal(grpo.advantage(rollout, normalize=False), 0)


def test_groups_go_by_their_ids():
  rewards, ids = np.array([1.0, 5, 3, 5]), np.array([0, 1, 0, 1])
  plain = lambda r, g: first(grpo.advantage(trajectory(r, g), normalize=False))
  np.testing.assert_allclose(plain(rewards, ids), [-1, 0, 1, 0])
  order = np.array([3, 0, 2, 1])
  np.testing.assert_allclose(
    plain(rewards[order], ids[order]), np.array([-1, 0, 1, 0])[order]
  )


def test_an_ungraded_sample_moves_no_other():
  whole = first(grpo.advantage(trajectory([1, 0, 1], [0, 0, 0])))
  beside = first(grpo.advantage(trajectory([1, 0, 1, 7], [0, 0, 0, -1])))
  np.testing.assert_array_equal(beside, [*whole, 0])


def test_packed_segments_are_as_rows_of_their_own():
  """Two samples packed into one row against one a row."""
  row = lambda x: jnp.asarray([x])
  fields = {
    "tokens_BT": row([0] * 6),
    "positions_BT": row([0, 1, 2, 0, 1, 2]),
    "segments_BT": row([1, 1, 1, 2, 2, 2]),
    "mask_BT": row([1.0, 1, 0, 1, 1, 0]),
    "logprobs_BT": jnp.zeros((1, 6)),
    "rewards_BT": row([1.0] * 3 + [0.0] * 3),
    "group_BT": row([4] * 6),
    "truncated_BT": jnp.zeros((1, 6)),
    "version_BT": jnp.zeros((1, 6), jnp.int32),
  }
  packed = grpo.advantage(Trajectory(**fields), delta=0.0)
  np.testing.assert_allclose(packed, [[1, 1, 1, -1, -1, -1]], rtol=1e-6)


def policy(logprobs):
  return Policy(logprobs, jnp.zeros_like(logprobs))


@pytest.mark.parametrize(
  "advantage, ratio, high, loss, slope",
  [
    (+1, 0.5, 0.2, -0.5, -1),
    (+1, 1.0, 0.2, -1.0, -1),
    (+1, 2.0, 0.2, -1.2, 0),
    (-1, 0.5, 0.2, 0.8, 0),
    (-1, 1.0, 0.2, 1.0, 1),
    (-1, 2.0, 0.2, 2.0, 1),
    (+1, 1.25, 0.28, -1.25, -1),
    (+1, 2.0, 0.28, -1.28, 0),
  ],
)
def test_the_clip_has_the_right_sign(advantage, ratio, high, loss, slope):
  rollout = trajectory([0], [0], [1], T=2)
  advantage_BT = jnp.full((1, 2), float(advantage))

  def total(r):
    logprobs = jnp.log(r) * jnp.ones((1, 2))
    return grpo.loss(policy(logprobs), rollout, advantage_BT, clip_high=high)[0]

  value, gradient = jax.value_and_grad(total)(ratio)
  np.testing.assert_allclose(value, loss, rtol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_normalisers():
  """L = [[1,2,9],[3,4,5]] under mask [[1,1,0],[1,1,1]]."""
  rollout = trajectory([0, 0], [0, 0], [2, 3])
  losses = jnp.array([[1.0, 2, 9, 9], [3, 4, 5, 9]])
  at = lambda how: grpo.loss(
    policy(jnp.zeros((2, 4))), rollout, -losses, aggregate=how
  )
  total, count, _ = at("token")
  np.testing.assert_allclose(total / count, 3.0)
  total, count, _ = at("sequence")
  np.testing.assert_allclose(total / count, 2.75)
  with pytest.raises(ValueError, match="tokenn"):
    at("tokenn")


def test_metrics_tell_of_the_mismatch():
  rollout = trajectory([0, 0], [0, 0], [2, 2])
  logprobs = jnp.log(jnp.array([[2.0, 1, 7, 7], [1, 1, 7, 7]]))
  _, _, told = grpo.loss(policy(logprobs), rollout, jnp.ones((2, 4)))
  share = {name: float(a / b) for name, (a, b) in told.items()}
  assert share["ratio_outside"] == share["clip_fraction"] == 0.25
  np.testing.assert_allclose(
    share["mismatch_kl"], (2 - 1 - np.log(2)) / 4, rtol=1e-6
  )


@pytest.mark.parametrize("far", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_log_ratios_far_off_stay_finite(far, advantage):
  rollout = trajectory([0, 0], [0, 0], [2, 2])
  total = lambda x: grpo.loss(policy(x), rollout, jnp.full((2, 4), advantage))
  value, _, told = total(jnp.full((2, 4), far))
  grad = jax.grad(lambda x: total(x)[0])(jnp.full((2, 4), far))
  assert np.all(np.isfinite(grad)) and np.isfinite(value)
  assert all(np.isfinite(a) for a, _ in told.values())
