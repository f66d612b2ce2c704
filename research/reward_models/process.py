"""A process reward model by judged steps (2305.20050; 2312.08935).

The score at a step's last token is the logit of the step being right; a label
between 0 and 1 is a share, as of completions from there that end right.
"""

import jax

from research.reward_models import _judged
from research.types import Steps


def loss(
  scores_BT: jax.Array, steps: Steps
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a mean over judged steps."""
  return _judged.cross_entropy(scores_BT, steps.labels_BT, steps.ends_BT)
