"""What a sample earned beside the other samples of its prompt.

Scores are one number a segment, repeated on its tokens. Groups go by their ids,
wherever the samples lie. A segment of group -1 (its grading failed) belongs to
none, moves no other and gets 0; so does a group whose scores are all equal
(max = min: eight fp32 scores of 0.1 have a std of 7.5e-9, not of 0).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research import segments
from research.types import Trajectory


class Group(NamedTuple):
  """Of each token: how many samples its group has, their mean and variance.

  `live_BT` is false where the scores of a group tell nobody anything.
  """

  count_BT: jax.Array
  mean_BT: jax.Array
  variance_BT: jax.Array
  live_BT: jax.Array


def of(
  trajectory: Trajectory,
  scores_BT: jax.Array,
  group_BT: jax.Array | None = None,
) -> Group:
  """Returns each token's group by the scores of its samples.

  `group_BT` are the trajectory's own ids, unless others are given; all are less
  than B times T.
  """
  ids_BT = trajectory.group_BT if group_BT is None else group_BT
  first_BT = segments.starts(trajectory.positions_BT, trajectory.segments_BT)
  ids = jnp.where(first_BT, ids_BT, -1).reshape(-1)  # -1 is dropped
  scores = scores_BT.reshape(-1)
  n = ids.size  # an upper bound of ids, so that the shape is static
  total = lambda x: jax.ops.segment_sum(x, ids, num_segments=n)
  count = jnp.maximum(total(jnp.ones_like(scores)), 1)
  mean = total(scores) / count
  variance = total(jnp.square(scores - mean[ids])) / count
  highest = jax.ops.segment_max(scores, ids, num_segments=n)
  spread = highest - jax.ops.segment_min(scores, ids, num_segments=n)
  inside_BT = (ids_BT >= 0) & (trajectory.segments_BT > 0)
  live_BT = inside_BT & (spread[ids_BT] > 0)
  return Group(count[ids_BT], mean[ids_BT], variance[ids_BT], live_BT)


def centred(trajectory: Trajectory, scores_BT: jax.Array) -> jax.Array:
  """Returns scores less their group's mean (Dr.GRPO, 2503.20783)."""
  group = of(trajectory, scores_BT)
  return jnp.where(group.live_BT, scores_BT - group.mean_BT, 0)


def standard(
  trajectory: Trajectory, scores_BT: jax.Array, delta: float
) -> jax.Array:
  """Returns (score - mean) / (std + delta) of each group (GRPO, 2402.03300).

  The std divides by n, not by n - 1.
  """
  group = of(trajectory, scores_BT)
  scale_BT = jnp.sqrt(group.variance_BT) + delta
  centred_BT = (scores_BT - group.mean_BT) / jnp.where(
    group.live_BT, scale_BT, 1
  )
  return jnp.where(group.live_BT, centred_BT, 0)


def left_out(
  trajectory: Trajectory,
  scores_BT: jax.Array,
  group_BT: jax.Array | None = None,
) -> jax.Array:
  """Returns scores less the mean of the group's others (RLOO, 2402.14740).

  That mean does not know of the sample, so no gradient is biased by it.
  """
  group = of(trajectory, scores_BT, group_BT)
  factor_BT = group.count_BT / jnp.maximum(group.count_BT - 1, 1)
  centred_BT = factor_BT * (scores_BT - group.mean_BT)
  return jnp.where(group.live_BT, centred_BT, 0)


def varied(
  scores: Sequence[float] | np.ndarray, groups: Sequence[int] | np.ndarray
) -> np.ndarray:
  """Returns, of each sample, whether its group's scores differ; on the host.

  DAPO's dynamic sampling keeps such groups alone. One entry a sample; -1, in no
  group, is False. Scores differ where they do in fp32, as on the device.
  """
  values, ids = np.asarray(scores, np.float32), np.asarray(groups)
  mixed = {g for g in ids if g >= 0 and np.ptp(values[ids == g]) > 0}
  return np.isin(ids, list(mixed))
