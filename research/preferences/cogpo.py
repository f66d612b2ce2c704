"""Cognitive preference optimisation (CogPO, 2504.09802).

DPO whose beta is a pair's own: small where the two differ by what suits the
student (both are right), larger where one is wrong, largest where a suitable
answer meets a wrong one. The pairs carry it.
"""

import jax

from research import margins, segments
from research.types import Pairs, Policy


def loss(
  chosen: Policy, rejected: Policy, pairs: Pairs
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over pairs.

  Raises:
    ValueError: the pairs have no beta_BT, or no reference log-probabilities.
  """
  if pairs.beta_BT is None:
    raise ValueError(
      "cogpo needs beta_BT, each pair's beta by how far its answers stand "
      "apart; with one beta for all use research.preferences.dpo"
    )
  batch = pairs.chosen
  first_BT = segments.starts(batch.positions_BT, batch.segments_BT)
  beta_BT = segments.each(first_BT * pairs.beta_BT, batch.segments_BT)
  chosen_BT, rejected_BT = margins.margins(chosen, rejected, pairs)
  return margins.logistic(chosen_BT, rejected_BT, beta_BT, pairs)
