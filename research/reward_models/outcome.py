"""An outcome reward model by right and wrong answers (2110.14168).

The score of an answer is read at its last token and is the logit of its reward,
which lies in [0, 1].
"""

import jax

from research import segments
from research.reward_models import _judged
from research.types import Trajectory


def loss(
  scores_BT: jax.Array, trajectory: Trajectory
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over graded answers."""
  mask_BT, ids_BT = trajectory.mask_BT, trajectory.segments_BT
  graded_BT = segments.total(mask_BT, ids_BT) > 0
  last_BT = (segments.ends(ids_BT) & graded_BT).astype(mask_BT.dtype)
  return _judged.cross_entropy(scores_BT, trajectory.rewards_BT, last_BT)
