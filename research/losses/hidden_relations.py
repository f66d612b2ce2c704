"""Hidden-state transfer: how the streams behind two layers relate their tokens.

Relational distillation (Park et al. 2019, 1904.05068) with the relations of
MiniLMv2 (2012.15828): a student's stream is held to the teacher's geometry, not
to its axes, so that widths may differ and no projection is learned and thrown
away. L = (1 - share) CE + share KL.
"""

import jax

from research import relations
from research.types import Dense, Features


def loss(
  student: Dense,
  signal: Features,
  weights_BT: jax.Array,
  *,
  heads: int = 1,
  share: float = 0.5,
  layer: int = -1,
  teacher_layer: int = -1,
  block: int = 128,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics) of the streams behind two layers.

  Raises:
    ValueError: a stream cannot be cut into `heads`.
  """
  gap_BT = relations.divergence_between(
    signal.student["hidden"][layer],
    signal.teacher["hidden"][teacher_layer],
    signal.segments_BT,
    heads=heads,
    block=block,
  )
  return relations.blended(
    student, signal.targets_BT, weights_BT, gap_BT, share=share, block=block
  )
