"""Likelihoods of the same bytes under two tokenizers (ALM, 2503.20083, eq. 6).

A span is what lies between two places where both tokenizations end a token. The
teacher gives it probability p, the product over its own tokens, the student q:

    L = sum_spans w KL(Bernoulli(p^(1/tau)) || Bernoulli(q^(1/tau)))

A tau above 1 keeps long spans, whose probabilities are all next to 0, apart.
"""

import jax
import jax.numpy as jnp

from research import divergence, segments
from research.types import Dense, Spans

ACROSS = True  # it hears a teacher of other tokens


def loss(
  student: Dense,
  signal: Spans,
  weights_BT: jax.Array,
  *,
  temperature: float = 100.0,
  block: int = 512,
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics), a span as heavy as its first token.

  The denominator counts spans. The metric `gap` is log q - log p of a span.
  """
  logprobs_BT, entropy_BT = divergence.of_tokens(
    student, signal.targets_BT, block=block
  )
  span_BT = segments.total(logprobs_BT, signal.spans_BT)
  first_BT = signal.spans_BT != jnp.roll(signal.spans_BT, 1, axis=1)
  first_BT = first_BT.at[:, 0].set(True) & (signal.spans_BT > 0)
  weights_BT = weights_BT * first_BT
  q_BT, p_BT = (x / temperature for x in (span_BT, signal.logprobs_BT))
  kl_BT = _bernoulli(p_BT, q_BT)
  metrics = divergence.means(
    weights_BT, gap=span_BT - signal.logprobs_BT, entropy=entropy_BT
  )
  return (weights_BT * kl_BT).sum(), weights_BT.sum(), metrics


def _bernoulli(p: jax.Array, q: jax.Array) -> jax.Array:
  """KL between Bernoullis of log-probabilities p and q of the one outcome."""
  p_no, q_no = _other(p), _other(q)
  return jnp.exp(p) * (p - q) + jnp.exp(p_no) * (p_no - q_no)


def _other(x: jax.Array) -> jax.Array:
  """log(1 - exp(x)), for x <= 0; a certainty counts as 1 - 1e-6."""
  return jnp.log(-jnp.expm1(jnp.minimum(x, -1e-6)))
