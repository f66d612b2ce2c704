"""Advantages by groups: published numbers, rounding, who belongs to whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import groups
from research.types import Trajectory


def rollout(ids):
  """One sample a row, of two tokens."""
  whole = jnp.repeat(jnp.asarray(ids)[:, None], 2, 1)
  ones = jnp.ones_like(whole)
  t = jnp.broadcast_to(jnp.arange(2)[None], whole.shape)
  return Trajectory(ones, t, ones, ones, ones, ones, whole, ones, ones)


def scores(x):
  return jnp.repeat(jnp.asarray(x, jnp.float32)[:, None], 2, 1)


WAYS = {
  "centred": groups.centred,
  "standard": lambda r, x: groups.standard(r, x, 0.0),
  "left_out": groups.left_out,
}


@pytest.mark.parametrize(
  "way, first, rest",
  [
    ("standard", 1.732051, -0.577350),
    ("left_out", 1.0, -1 / 3),
    ("centred", 0.75, -0.25),
  ],
)
def test_one_of_four_is_right(way, first, rest):
  found = WAYS[way](rollout([0] * 4), scores([1, 0, 0, 0]))
  np.testing.assert_allclose(found[:, 0], [first, *[rest] * 3], rtol=1e-5)
  np.testing.assert_array_equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("way", WAYS)
def test_equal_scores_are_exactly_zero(way):
  """Eight fp32 scores of 0.1, which a float's variance tells apart."""
  seen, x = rollout([0] * 8), scores([0.1] * 8)
  assert groups.of(seen, x).variance_BT.min() > 0
  np.testing.assert_array_equal(WAYS[way](seen, x), 0)


@pytest.mark.parametrize("way", WAYS)
def test_control_a_variance_of_floats_is_noticed(way, monkeypatch):
  of = groups.of

  def planted(seen, x, ids=None):
    group = of(seen, x, ids)
    return group._replace(live_BT=group.variance_BT > 0)

  monkeypatch.setattr(groups, "of", planted)
  with pytest.raises(AssertionError):
    test_equal_scores_are_exactly_zero(way)


@pytest.mark.parametrize("way", WAYS)
def test_a_group_of_one_and_no_group_get_nothing(way):
  found = WAYS[way](rollout([0, 1, 1, -1]), scores([5, 1, 0, 7]))[:, 0]
  assert found[0] == found[3] == 0 and found[1] > 0 > found[2]
  alone = WAYS[way](rollout([1, 1]), scores([1, 0]))[:, 0]
  np.testing.assert_array_equal(found[1:3], alone)


def test_ids_say_who_belongs_together():
  ids, x = np.array([0, 1, 0, 1]), np.array([1.0, 5, 3, 5])
  found = groups.centred(rollout(ids), scores(x))[:, 0]
  np.testing.assert_array_equal(found, [-1, 0, 1, 0])
  order = np.array([3, 0, 2, 1])
  again = groups.centred(rollout(ids[order]), scores(x[order]))[:, 0]
  np.testing.assert_array_equal(again, found[order])


def test_other_groups_may_be_given():
  """REINFORCE's baseline is of the whole batch."""
  one = jnp.zeros((4, 2), int)
  found = groups.left_out(rollout([0, 0, 1, 1]), scores([1, 0, 2, 5]), one)
  wanted = [1 - 7 / 3, -8 / 3, 2 - 6 / 3, 5 - 1]
  np.testing.assert_allclose(found[:, 0], wanted, atol=1e-6)


def test_mixed_groups_are_found_on_the_host():
  """By max = min, not by a float's std; -1 is in none."""
  rewards = [0.1, 0.1, 1, 0, 0.3, 0.3 + 1e-6, 9, 8]
  ids = [3, 3, 0, 0, 5, 5, -1, -1]
  found = groups.varied(rewards, ids)
  np.testing.assert_array_equal(found, [0, 0, 1, 1, 1, 1, 0, 0])
  order = np.array([7, 3, 0, 5, 2, 4, 6, 1])
  again = groups.varied(np.array(rewards)[order], np.array(ids)[order])
  np.testing.assert_array_equal(again, found[order])
  assert not groups.varied([], []).any()
  # one and the same fp32, so that the device finds no advantage in them
  assert not groups.varied([0.1 + 0.2, 0.3], [0, 0]).any()


def test_a_static_shape_serves_any_groups():
  """Ids that no sample has change neither shape nor values under jit."""
  f = jax.jit(groups.centred)
  some = f(rollout([0, 0, 2, 2]), scores([1, 0, 1, 0]))
  other = f(rollout([1, 1, 0, 0]), scores([1, 0, 1, 0]))
  np.testing.assert_array_equal(some, other)
