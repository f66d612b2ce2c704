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
