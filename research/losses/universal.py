"""Universal logit distance: any teacher, any vocabulary (ULD, 2402.12030).

L = sum_t w_t sum_i |p_(i) - q_(i)|, both distributions sorted, the shorter one
followed by zeros: the Wasserstein distance between them where every two tokens
are equally far. It asks how sure the teacher is, never of what.
"""

import jax
import jax.numpy as jnp

from research import divergence
from research.types import Dense

ACROSS = True  # it hears a teacher of other tokens


def loss(
  student: Dense, signal: Dense, weights_BT: jax.Array, *, block: int = 512
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics); between 0 and 2 a token.

  `signal.hidden_BTE[t]` is the teacher's where it stands in its own tokens at
  the student's t; where it stands nowhere the weight is 0.
  """

  def f(q_QV, p_QV):
    q, p = (jnp.sort(jnp.exp(x), descending=True) for x in (q_QV, p_QV))
    most = max(q.shape[1], p.shape[1])
    longer = lambda x: jnp.pad(x, ((0, 0), (0, most - x.shape[1])))
    return jnp.abs(longer(p) - longer(q)).sum(-1)

  return divergence.total(f, student, signal, weights_BT, block=block)
