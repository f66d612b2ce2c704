"""Fixed arrays that TRL's worker and our own tests are both asked about."""

import numpy as np

LENGTHS = (2, 6, 3, 5)  # sampled tokens of each row


def rollout():
  """Fixed log-probabilities [4, 6] of four laws, and an advantage a row."""
  draw = np.random.default_rng(3)
  sampler = draw.normal(size=(4, 6)) - 2
  near = lambda: sampler + 0.3 * draw.normal(size=(4, 6))
  laws = {"sampler": sampler, "old": near(), "now": near(), "ref": near()}
  mask = np.arange(6)[None] < np.array(LENGTHS)[:, None]
  return laws, mask.astype(float), np.array([1.2, -0.7, 0.4, -0.9])


def pairs():
  """Fixed log-probabilities [6, 5], chosen rows first, and two lengths each."""
  draw = np.random.default_rng(4)
  laws = [draw.normal(size=(6, 5)) - 2 for _ in range(2)]
  lengths = np.array([2, 5, 3, 4, 1, 5])
  return *laws, (np.arange(5)[None] < lengths[:, None]).astype(float)
