"""Students, and what each loss listens to."""

import typing

import jax
import jax.numpy as jnp
import numpy as np

from research.types import Dense, Features, Sampled, Spans, Sparse, Written


def dense(seed, B=2, T=5, E=4, V=7, dtype=jnp.float32):
  a, b = jax.random.split(jax.random.key(seed))
  return Dense(
    jax.random.normal(a, (B, T, E), dtype),
    jax.random.normal(b, (V, E), dtype),
  )


def signal_for(module, seed=1, **shape):
  """What each loss listens to: a whole distribution, or sampled tokens."""
  kind = typing.get_type_hints(module.loss)["signal"]
  if kind is Dense:
    return dense(seed, E=6, **shape)
  if kind is Sparse:
    return candidates(dense(seed, E=6, **shape), 3)
  B, T, V = shape.get("B", 2), shape.get("T", 5), 7
  targets = jax.random.randint(jax.random.key(seed), (B, T), 0, V)
  if kind is Written:
    return Written(dense(seed, E=6, **shape), targets, jnp.ones((B, T), int))
  if kind is Features:
    layers = lambda key, E: {
      name: jax.random.normal(jax.random.fold_in(key, i), (2, B, T, E))
      for i, name in enumerate(("hidden", "q", "k", "v"))
    }
    own, theirs = jax.random.split(jax.random.key(seed))
    ids = jnp.ones((B, T), int)
    return Features(layers(own, 4), layers(theirs, 6), targets, ids)
  if kind is Spans:
    spans = jnp.cumsum(jnp.ones((B, T), int), axis=1)  # a token each
    return Spans(targets, spans, -jnp.linspace(0.5, 3, B * T).reshape(B, T))
  return Sampled(targets, -jnp.ones((B, T)))


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
