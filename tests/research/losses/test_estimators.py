"""What is estimated on sampled answers has the exact gradient in expectation.

Answers are three tokens over eight, from a student and a teacher that see the
token before: exactly, over all 512 answers, and on answers that are drawn.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.losses import minillm, sampled_reverse_kl, supervised
from research.types import Dense, Sampled, Written

V, T, DRAWN = 8, 3, 20_000
ALL = np.stack(np.unravel_index(np.arange(V**T), (V,) * T), -1)
STUDENT, TEACHER = np.random.default_rng(0).normal(size=(2, V + 1, V))


def before(answers):
  """The token before each of an answer's own; V is none."""
  return np.pad(answers[:, :-1], ((0, 0), (1, 0)), constant_values=V)


def log_probs(table, answers=ALL):
  """log probability of each token of answers, from logits by token before."""
  return jax.nn.log_softmax(table)[before(answers), answers]


def answers_kl(one, other):
  """KL between whole answers, of two tables."""
  a, b = (log_probs(x).sum(-1) for x in (one, other))
  return (jnp.exp(a) * (a - b)).sum()


def reverse(table):
  return answers_kl(table, TEACHER)


def forward(table):
  return answers_kl(TEACHER, table)


def token_by_token(table):
  """The reverse KL of each token, on prefixes that are given."""
  q, p = (jax.nn.log_softmax(x) for x in (table, TEACHER))
  kl = (jnp.exp(q) * (q - p)).sum(-1)
  seen = jax.lax.stop_gradient(jnp.exp(log_probs(table).sum(-1)))
  return (seen * kl[before(ALL)].sum(-1)).sum()


def cost(module, table, prefix, answer, **args):
  """What a loss says of one answer."""
  seen = jnp.eye(V + 1)[prefix][None]
  teacher = Dense(seen, jnp.asarray(TEACHER).T)
  targets = answer[None]
  if module is minillm:
    signal = Written(teacher, targets, jnp.ones_like(targets))
  else:
    theirs = jax.nn.log_softmax(TEACHER)[prefix, answer]
    signal = Sampled(targets, theirs[None])
  student = Dense(seen, table.T)
  return module.loss(student, signal, jnp.ones((1, T)), **args)[0]


of = lambda module, **args: functools.partial(cost, module, **args)


def undriven(table, prefix, answer):
  """Planted: the log-ratio itself is differentiated; its mean slope is 0."""
  own, theirs = (
    jax.nn.log_softmax(x)[prefix, answer] for x in (table, TEACHER)
  )
  return (own - theirs).sum()


# what is estimated, from whose answers, and what its gradient should be
RIGHT = {
  "minillm": (of(minillm, normalize=False), STUDENT, reverse),
  "sampled_reverse_kl": (of(sampled_reverse_kl), STUDENT, token_by_token),
  "supervised": (of(supervised), TEACHER, forward),
}
WRONG = {
  "minillm, bounded": (of(minillm), STUDENT, reverse),
  "without what follows": (of(sampled_reverse_kl), STUDENT, reverse),
  "the teacher's own answers": (
    of(sampled_reverse_kl),
    TEACHER,
    token_by_token,
  ),
  "a log-ratio's slope": (undriven, STUDENT, token_by_token),
}
CASES = RIGHT | WRONG


def slopes(name, answers):
  """(each answer's gradient, the exact one), by the student's table."""
  f, _, exact = CASES[name]
  each = jax.vmap(jax.grad(f), (None, 0, 0))
  held = (jnp.asarray(x) for x in (STUDENT, before(answers), answers))
  found = jax.jit(each)(*held), jax.grad(exact)(jnp.asarray(STUDENT))
  return jax.device_get(found)


def drawn(table):
  """DRAWN answers, a token at a time."""
  said = [np.full(DRAWN, V)]
  for key in jax.random.split(jax.random.key(0), T):
    logits = jnp.asarray(table)[said[-1]]
    said.append(np.asarray(jax.random.categorical(key, logits)))
  return np.stack(said[1:], -1)


def bias(name):
  """The mean gradient's largest distance from the exact one, in sigmas."""
  with jax.enable_x64(True):
    each, exact = slopes(name, drawn(CASES[name][1]))
  sigma = np.std(each, 0, ddof=1) / np.sqrt(DRAWN)
  return (np.abs(np.mean(each, 0) - exact) / sigma).max()


@pytest.mark.parametrize("name", RIGHT)
def test_over_all_answers_the_gradient_is_exact(name):
  with jax.enable_x64(True):
    each, exact = slopes(name, ALL)
    share = jnp.exp(log_probs(CASES[name][1]).sum(-1))
  found = np.einsum("a,apv->pv", share, each)
  np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
  assert np.abs(exact).max() > 0.1


@pytest.mark.parametrize("name", RIGHT)
def test_on_drawn_answers_it_is_within_four_sigma(name):
  assert bias(name) < 4


@pytest.mark.parametrize("name", WRONG)
def test_control_a_biased_estimator_is_noticed(name):
  assert bias(name) > 6
