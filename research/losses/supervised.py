"""Cross-entropy on the tokens that a teacher wrote.

Sequence-level distillation (Kim & Rush 2016, 1606.07947), also plain
pretraining: L = -sum_t w_t log q(y_t).
"""

import jax

from research import divergence
from research.types import Dense, Sampled


def loss(
  student: Dense, signal: Sampled, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics): nats over the weighted tokens."""
  logprobs_BT, entropy_BT = divergence.of_tokens(
    student, signal.targets_BT, block=block
  )
  metrics = divergence.means(weights_BT, entropy=entropy_BT)
  return -(weights_BT * logprobs_BT).sum(), weights_BT.sum(), metrics
