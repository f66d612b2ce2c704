"""Sums over segments, against loops."""

import jax.numpy as jnp
import numpy as np

from research import segments


def test_totals_repeat_on_the_tokens_of_their_segment():
  rng = np.random.default_rng(0)
  ids = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0]])
  x = rng.standard_normal(ids.shape)
  expected = np.zeros_like(x)
  for b, t in np.ndindex(*ids.shape):
    if ids[b, t]:
      expected[b, t] = x[b][ids[b] == ids[b, t]].sum()
  out = segments.total(jnp.asarray(x), jnp.asarray(ids))
  np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_starts_and_next_tokens():
  ids = jnp.array([[1, 1, 2, 2, 2, 0]])
  positions = jnp.array([[0, 1, 0, 1, 2, 0]])
  starts = segments.starts(positions, ids)
  np.testing.assert_array_equal(starts, [[1, 0, 1, 0, 0, 0]])
  following = segments.next_tokens(jnp.array([[5, 6, 7]]))
  np.testing.assert_array_equal(following[:, :2], [[6, 7]])


def test_what_is_later_is_summed_within_a_segment():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 9)).astype(np.float32)
  ids = np.array([[1] * 4 + [2] * 5, [1] * 3 + [0] * 6, [1, 2, 3] * 3])
  ids[2] = np.sort(ids[2])
  expected = np.zeros_like(x)
  for b, t in np.ndindex(x.shape):
    later = [s for s in range(t + 1, 9) if ids[b, s] == ids[b, t] > 0]
    expected[b, t] = x[b, later].sum()
  found = segments.later(jnp.asarray(x), jnp.asarray(ids))
  np.testing.assert_allclose(found, expected, atol=1e-6)


IDS = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 3, 3, 0, 0], [0, 0, 1, 1, 2, 2]])


def test_ends():
  found = segments.ends(jnp.asarray(IDS))
  wanted = [[0, 1, 0, 0, 1, 0], [1, 1, 0, 1, 0, 0], [0, 0, 0, 1, 0, 1]]
  np.testing.assert_array_equal(found, wanted)


def test_each_segments_sum_has_a_column():
  x = np.random.default_rng(0).normal(size=IDS.shape)
  found = segments.each(jnp.asarray(x), jnp.asarray(IDS))
  for b, k in np.ndindex(*IDS.shape):
    np.testing.assert_allclose(
      found[b, k], x[b][IDS[b] == k + 1].sum(), atol=1e-6
    )


def test_a_recursion_runs_back_within_a_segment():
  a, c = np.random.default_rng(0).normal(size=(2, *IDS.shape))
  found = segments.recur(*map(jnp.asarray, (a, c, IDS)))
  for b, row in enumerate(IDS):
    x = 0.0
    for t in reversed(range(len(row))):
      inner = t + 1 < len(row) and row[t] == row[t + 1]
      x = c[b, t] + (a[b, t] * x if inner else 0.0)
      if row[t]:
        np.testing.assert_allclose(found[b, t], x, rtol=1e-5)
