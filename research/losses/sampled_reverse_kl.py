"""Reverse KL estimated on the student's own samples (Thinking Machines, 2025).

Each sampled token's reward is log p(y_t) - log q(y_t), discount 0; the
surrogate sum_t w_t sg[log q - log p] log q has the gradient of
sum_t KL(q || p) in expectation over y_t ~ q. It needs one number a token from
the teacher.
"""

import jax

from research import divergence
from research.types import Dense, Sampled


def loss(
  student: Dense, signal: Sampled, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); the metric `kl` is the estimate.

  Raises:
    ValueError: the signal has no log-probabilities.
  """
  if signal.logprobs_BT is None:
    raise ValueError(
      "sampled_reverse_kl needs the teacher's log-probability of each token: "
      "give the stage a teacher, or use losses.supervised"
    )
  logprobs_BT, entropy_BT = divergence.of_tokens(
    student, signal.targets_BT, block=block
  )
  gap_BT = jax.lax.stop_gradient(logprobs_BT) - signal.logprobs_BT
  metrics = divergence.means(weights_BT, kl=gap_BT, entropy=entropy_BT)
  total = (weights_BT * gap_BT * logprobs_BT).sum()
  return total, weights_BT.sum(), metrics
