"""MiniLLM's surrogate has the gradient of the KL between whole answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from research.losses import minillm
from research.types import Dense, Written

LONG, FEW = 3, 3  # all answers of LONG tokens over FEW
PREFIXES = [
  prefix
  for n in range(LONG)
  for prefix in itertools.product(range(FEW), repeat=n)
]
ANSWERS = list(itertools.product(range(FEW), repeat=LONG))


def along(answer, table):
  """A model that is a table of logits by prefix, along one answer."""
  at = [PREFIXES.index(answer[:t]) for t in range(LONG)]
  return Dense(jnp.eye(len(PREFIXES))[jnp.array(at)][None], table.T)


def test_minillm_has_the_gradient_of_whole_answers():
  """Over all 27 answers, against autodiff of KL(q || p) between them."""
  with jax.enable_x64(True):
    tables = [
      jnp.asarray(np.random.default_rng(n).normal(size=(len(PREFIXES), FEW)))
      for n in (0, 1)
    ]

    def log_prob(answer, table):
      logp = jax.nn.log_softmax(table)
      at = [PREFIXES.index(answer[:t]) for t in range(LONG)]
      return sum(logp[i, y] for i, y in zip(at, answer, strict=True))

    def whole(table):
      own = jnp.stack([log_prob(a, table) for a in ANSWERS])
      theirs = jnp.stack([log_prob(a, tables[1]) for a in ANSWERS])
      return (jnp.exp(own) * (own - theirs)).sum()

    def one(table, answer, **args):
      targets = jnp.array([answer])
      ids = jnp.ones_like(targets)
      signal = Written(along(answer, tables[1]), targets, ids)
      student = along(answer, table)
      return minillm.loss(student, signal, jnp.ones((1, LONG)), **args)[0]

    def expected(**args):
      return sum(
        jnp.exp(log_prob(a, tables[0])) * jax.grad(one)(tables[0], a, **args)
        for a in ANSWERS
      )

    exact = jax.grad(whole)(tables[0])
    np.testing.assert_allclose(expected(normalize=False), exact, atol=1e-12)
    assert np.abs(expected() - exact).max() > 1e-3  # another, bounded one
    # At the last token nothing lies behind: there both are the exact part.
    last = [i for i, p in enumerate(PREFIXES) if len(p) == LONG - 1]
    np.testing.assert_allclose(
      expected()[jnp.array(last)], exact[jnp.array(last)], atol=1e-12
    )
