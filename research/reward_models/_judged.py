"""What reward models share: cross-entropy of a score read as a logit."""

import jax
import jax.numpy as jnp


def cross_entropy(
  scores_BT: jax.Array, labels_BT: jax.Array, weights_BT: jax.Array
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics) of scores against labels in [0, 1].

  -(y log sigmoid(s) + (1 - y) log sigmoid(-s)), a mean over the weights;
  `accuracy` is how often the likelier label is the score's.
  """
  loss_BT = -labels_BT * jax.nn.log_sigmoid(scores_BT)
  loss_BT -= (1 - labels_BT) * jax.nn.log_sigmoid(-scores_BT)
  loss_BT = jnp.where(weights_BT > 0, loss_BT, 0)
  right_BT = (scores_BT > 0) == (labels_BT > 0.5)
  count = weights_BT.sum()
  metrics = {"accuracy": ((weights_BT * right_BT).sum(), count)}
  return (weights_BT * loss_BT).sum(), count, metrics
