"""Attention transfer: how a layer's queries, keys and values relate.

MiniLMv2 (Wang et al. 2021, 2012.15828): KL between a teacher's and a student's
Q-Q, K-K and V-V relations, so that neither widths nor heads need to agree and
nothing is learned beside the student. What is above the layer learns from the
text alone: L = (1 - share) CE + share (KL_Q + KL_K + KL_V) / 3.
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
  """Returns (sum, denominator, metrics) of two layers, cut into `heads` each.

  Raises:
    ValueError: a token's queries, keys or values cannot be cut so.
  """
  gaps_BT = {
    name: relations.divergence_between(
      signal.student[name][layer],
      signal.teacher[name][teacher_layer],
      signal.segments_BT,
      heads=heads,
      block=block,
    )
    for name in "qkv"
  }
  gap_BT = (gaps_BT["q"] + gaps_BT["k"] + gaps_BT["v"]) / 3
  return relations.blended(
    student, signal.targets_BT, weights_BT, gap_BT, share=share, block=block
  )
