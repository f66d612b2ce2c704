"""Direct preference optimisation (DPO, 2305.18290, equation 7).

L = -log sigmoid(beta h), h = log pi(w) / ref(w) - log pi(l) / ref(l) of whole
answers: the reward beta log pi / ref, fitted to preferences. beta is 0.1 in the
paper.
"""

import jax
import jax.numpy as jnp

from research import margins
from research.types import Pairs, Policy


def loss(
  chosen: Policy, rejected: Policy, pairs: Pairs, *, beta: float = 0.1
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over pairs.

  Raises:
    ValueError: the pairs have no reference log-probabilities.
  """
  chosen_BT, rejected_BT = margins.margins(chosen, rejected, pairs)
  beta_BT = jnp.full_like(chosen_BT, beta)
  return margins.logistic(chosen_BT, rejected_BT, beta_BT, pairs)
