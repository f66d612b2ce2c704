"""Policies that are tables of logits by prefix, and all answers they can give.

Eight tokens, of which 0 ends an answer: expectations are sums over all answers,
or over all groups of two, each with its probability.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from research.types import Policy, Trajectory

FEW, END = 8, 0


class Space:
  """All answers of at most `longest` tokens, as arrays of their tokens."""

  def __init__(self, longest):
    inner = range(1, FEW)
    self.prefixes = [
      prefix
      for n in range(longest)
      for prefix in itertools.product(inner, repeat=n)
    ]
    self.answers = [(*p, END) for p in self.prefixes]
    self.answers += list(itertools.product(inner, repeat=longest))
    shape = (len(self.answers), longest)
    self.tokens, self.at = np.zeros(shape, int), np.zeros(shape, int)
    self.mask = np.zeros(shape)
    for i, answer in enumerate(self.answers):
      for t, token in enumerate(answer):
        self.tokens[i, t], self.mask[i, t] = token, 1
        self.at[i, t] = self.prefixes.index(answer[:t])
    self.longest = longest

  def drawn(self, seed, *shape):
    """Numbers a prefix (logits [P, V], values [P]) or a token of it."""
    draw = np.random.default_rng(seed).normal(size=(len(self.prefixes), *shape))
    return jnp.asarray(draw)

  def said(self, table, i):
    """Numbers [..., V] by prefix, of the tokens of answers `i`: [len(i), L]."""
    return table[self.at[i], self.tokens[i]]

  def log_prob(self, table):
    """Of each answer: the log of its probability."""
    return (self.mask * self.said(jax.nn.log_softmax(table), slice(None))).sum(
      -1
    )

  def mean(self, table, values):
    """The expectation of numbers an answer."""
    return (jnp.exp(self.log_prob(table)) * values).sum()

  def visits(self, table):
    """How often each prefix is come by."""
    p = jnp.exp(self.log_prob(table))[:, None] * self.mask
    return jnp.zeros(len(self.prefixes)).at[self.at].add(p)


def behind_a_prompt(x):
  """L predictions a row as L + 1 tokens: the last predicts nothing."""
  return jnp.pad(x, ((0, 0), (0, 1)))


def trajectory(space, i, old, rewards, **more):
  """One answer a row behind a prompt of one token, all of group 0."""
  i = jnp.asarray(i)
  pick = lambda x: jnp.asarray(x)[i]
  lengths = pick(space.mask).sum(-1).astype(int)[:, None]
  t = jnp.arange(space.longest + 1)[None]
  inside = (t <= lengths).astype(int)
  logp = jax.nn.log_softmax(old)
  tokens = pick(space.tokens)
  fields = {
    "tokens_BT": jnp.pad(tokens, ((0, 0), (1, 0))),
    "positions_BT": t * inside,
    "segments_BT": inside,
    "mask_BT": behind_a_prompt(pick(space.mask)),
    "logprobs_BT": behind_a_prompt(logp[pick(space.at), tokens]),
    "rewards_BT": pick(rewards)[:, None] * inside,
    "group_BT": jnp.zeros_like(inside),
    "truncated_BT": jnp.zeros_like(inside),
    "version_BT": jnp.zeros_like(inside),
  }
  return Trajectory(**fields | more)


def along(space, i, table):
  """A table by prefix and token, [B, T] along answers `i`."""
  at, tokens = jnp.asarray(space.at)[i], jnp.asarray(space.tokens)[i]
  return behind_a_prompt(table[at, tokens])


def policy(space, i, table, reference=None):
  """What a table says of the answers `i`."""
  logp = jax.nn.log_softmax(table)
  by_prefix = lambda x: behind_a_prompt(x[jnp.asarray(space.at)[i]])
  entropy = -(jnp.exp(logp) * logp).sum(-1)
  divergence = None
  if reference is not None:
    gap = logp - jax.nn.log_softmax(reference)
    divergence = by_prefix((jnp.exp(logp) * gap).sum(-1))
  return Policy(
    along(space, i, logp),
    by_prefix(entropy),
    divergence,
  )


def expected(f, space, old, size):
  """The expectation of f(answers) over all groups of `size` from `old`."""
  log_prob = jax.lax.stop_gradient(space.log_prob(old))
  n = len(space.answers)
  groups = jnp.asarray(list(itertools.product(range(n), repeat=size)))
  return (jnp.exp(log_prob[groups].sum(-1)) * jax.vmap(f)(groups)).sum()
