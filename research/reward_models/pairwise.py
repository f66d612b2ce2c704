"""A reward model by preferences: Bradley-Terry (2203.02155, equation 1).

L = -log sigmoid(s(w) - s(l)), s the score at an answer's last token.
"""

import jax
import jax.numpy as jnp

from research import margins, segments
from research.types import Batch, Pairs


def loss(
  chosen_BT: jax.Array, rejected_BT: jax.Array, pairs: Pairs
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over pairs."""
  first_BT = _answers(chosen_BT, pairs.chosen)
  second_BT = _answers(rejected_BT, pairs.rejected)
  ones_BT = jnp.ones_like(first_BT)
  return margins.logistic(first_BT, second_BT, ones_BT, pairs)


def _answers(scores_BT: jax.Array, batch: Batch) -> jax.Array:
  last_BT = segments.ends(batch.segments_BT)
  return segments.each(jnp.where(last_BT, scores_BT, 0), batch.segments_BT)
