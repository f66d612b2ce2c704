"""How well scores tell right from wrong, with intervals over problems."""

from collections.abc import Mapping, Sequence

import numpy as np

from research.evaluation.intervals import Interval

RESAMPLES = 2_000


def auc(
  found: Mapping[str, Sequence[tuple[float, float]]], *, seed: int
) -> Interval:
  """Returns how often what is right scores above what is wrong; ties are half.

  `found` has (score, label) by problem, and the 95 % interval is a bootstrap
  over problems. Raises ValueError where nothing is right, or nothing wrong.
  """
  pairs = [(i, *x) for i, key in enumerate(found) for x in found[key]]
  of, scores, labels = (np.array(x) for x in zip(*pairs, strict=True))
  right, wrong = labels > 0.5, labels <= 0.5
  if right.all() or wrong.all():
    raise ValueError("auc: all labels are alike, so nothing can be ranked")
  above = np.sign(scores[right][:, None] - scores[wrong][None]) / 2 + 0.5
  n = len(found)
  won, met = np.zeros((n, n)), np.zeros((n, n))
  both = of[right][:, None], of[wrong][None]
  np.add.at(won, both, above)
  np.add.at(met, both, 1.0)
  rng = np.random.default_rng(seed)
  drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
  part = lambda x: np.sum(drawn @ x * drawn, axis=1)
  told = part(met)
  means = part(won)[told > 0] / told[told > 0]
  low, high = np.quantile(means, (0.025, 0.975))
  mean = float(won.sum() / met.sum())
  return Interval(mean=mean, low=float(low), high=float(high), n=n)
