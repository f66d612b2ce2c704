"""What preference losses share: how far a policy prefers the chosen answers."""

import jax
import jax.numpy as jnp

from research import segments
from research.types import Batch, Pairs, Policy


def margins(
  chosen: Policy, rejected: Policy, pairs: Pairs
) -> tuple[jax.Array, jax.Array]:
  """Returns (chosen_BT, rejected_BT): log pi / ref of whole answers.

  Column k is segment k + 1 of the row, as in `segments.each`.
  """
  first = _answers(chosen, pairs.ref_chosen_BT, pairs.chosen)
  second = _answers(rejected, pairs.ref_rejected_BT, pairs.rejected)
  return first, second


def logistic(
  chosen_BT: jax.Array, rejected_BT: jax.Array, beta_BT: jax.Array, pairs: Pairs
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics) of -log sigmoid(beta (c - r)).

  The mean is over pairs; columns without a pair weigh nothing.
  """
  live_BT = there(pairs.chosen) * there(pairs.rejected)
  margin_BT = beta_BT * (chosen_BT - rejected_BT)
  count = live_BT.sum()
  mean = lambda x_BT: ((live_BT * x_BT).sum(), count)
  metrics = {
    "accuracy": mean(margin_BT > 0),
    "margin": mean(margin_BT),
    "chosen": mean(beta_BT * chosen_BT),
    "rejected": mean(beta_BT * rejected_BT),
  }
  loss_BT = -jax.nn.log_sigmoid(margin_BT)
  return (live_BT * loss_BT).sum(), count, metrics


def there(batch: Batch) -> jax.Array:
  """Returns a float [B, T]: 1 at column k where segment k + 1 weighs."""
  weight_BT = segments.each(batch.weights_BT, batch.segments_BT)
  return (weight_BT > 0).astype(batch.weights_BT.dtype)


def _answers(
  policy: Policy, ref_BT: jax.Array | None, batch: Batch
) -> jax.Array:
  if ref_BT is None:
    raise ValueError(
      "preferences need the reference's log-probabilities: score both answers "
      "with the starting checkpoint and set ref_chosen_BT, ref_rejected_BT"
    )
  weights_BT = batch.weights_BT
  gap_BT = jnp.where(weights_BT > 0, policy.logprobs_BT - ref_BT, 0)
  return segments.each(weights_BT * gap_BT, batch.segments_BT)
