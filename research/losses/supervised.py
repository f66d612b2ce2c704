"""Cross-entropy on the tokens that a teacher wrote.

Sequence-level distillation (Kim & Rush 2016, 1606.07947), also plain
pretraining: L = -sum_t w_t log q(y_t).
"""

import jax

import kernels
from research.types import Dense, Sampled


def loss(
  student: Dense, signal: Sampled, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics): nats over the weighted tokens."""
  logprobs_BT, entropy_BT = kernels.token_logprobs(
    student.hidden_BTE,
    student.unembed_VE,
    signal.targets_BT,
    softcap=student.softcap,
    block=block,
  )
  total, denominator = -(weights_BT * logprobs_BT).sum(), weights_BT.sum()
  entropy = ((weights_BT * entropy_BT).sum(), denominator)
  return total, denominator, {"entropy": entropy}
