"""Distributions, and what a teacher of one is asked for."""

import jax
import jax.numpy as jnp
import numpy as np

from research.types import Dense, Sparse


def dense(seed, B=2, T=5, E=4, V=7, dtype=jnp.float32):
  a, b = jax.random.split(jax.random.key(seed))
  return Dense(
    jax.random.normal(a, (B, T, E), dtype),
    jax.random.normal(b, (V, E), dtype),
  )


def candidates(teacher, C):
  """The C likeliest tokens of a teacher, and the mass of the others."""
  logp = teacher.log_probs(teacher.hidden_BTE.reshape(-1, 6))
  logp = logp.reshape(*teacher.hidden_BTE.shape[:2], -1)
  order = jnp.argsort(-logp, axis=-1)
  best, rest = order[..., :C], order[..., C:]
  pick = lambda ids: jnp.take_along_axis(logp, ids, -1)
  return Sparse(best, pick(best), jax.nn.logsumexp(pick(rest), -1))


def one_token(*probs):
  """A distribution over a few tokens at one place."""
  logits = jnp.log(jnp.array(probs))
  return Dense(jnp.ones((1, 1, 1)), logits[:, None])


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))
