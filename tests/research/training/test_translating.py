"""A teacher of another tokenizer, in the loop: against spans one at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import align, packing, text
from research.losses import aligned_spans, universal
from research.models import presets, transformer
from research.training import objectives
from research.types import Batch

OWN = text.load_tokenizer("bytes")
OTHER = text.load_tokenizer("tests/golden/templates/qwen2")
STUDENT = presets.make("tiny", vocab=OWN.size, width=32, layers=1)
TEACHER = presets.make("tiny", vocab=OTHER.size, width=48, layers=2)
TALKS = [
  {"prompt": "3+4", "completion": "it is seven: 7"},
  {"prompt": "and twice that?", "completion": "fourteen of them"},
  {"prompt": "a", "completion": "b"},
]
TEMPERATURE = 3.0
SPANS = functools.partial(aligned_spans.loss, temperature=TEMPERATURE, block=16)
LOSSES = {"spans": SPANS, "universal": universal.loss}


@pytest.fixture(scope="module")
def student():
  return transformer.init(STUDENT, jax.random.key(1))


@pytest.fixture(scope="module")
def teacher():
  return transformer.init(TEACHER, jax.random.key(2))


def inputs(rows, theirs=OTHER):
  """Conversations by row, packed, with what a teacher reads of them."""
  made = [[text.example(OWN, TALKS[i]) for i in row] for row in rows]
  batch = packing.to_batch(made, 64, pad=OWN.pad)
  told = map(np.asarray, (batch.tokens_BT, batch.segments_BT))
  return batch, align.Beside(OWN, theirs, TALKS).along(*told)


def logprobs(model, params, tokens):
  """All next-token log-probabilities of one conversation alone."""
  ids_BT = jnp.asarray(tokens, jnp.int32)[None]
  ones_BT, at_BT = jnp.ones_like(ids_BT), jnp.arange(len(tokens))[None]
  rows = Batch(ids_BT, ones_BT * 1.0, at_BT, ones_BT)
  said = jax.jit(objectives.speak, static_argnums=0)(model, params, rows)
  return np.asarray(said.log_probs(said.hidden_BTE[0]), np.float64)


def of_spans(model, params, side):
  """log-probability of each span of a conversation, added up by hand."""
  every = logprobs(model, params, side["tokens"])
  told = {}
  for i in range(1, len(side["tokens"])):
    n = int(side["spans"][i])
    told[n] = told.get(n, 0.0) + every[i - 1, side["tokens"][i]]
  told.pop(0, None)
  return told


def test_spans_are_what_each_side_says_of_them(student, teacher):
  """KL between Bernoullis, a span at a time, of conversations by themselves."""
  wanted = count = 0.0
  for talk in TALKS:
    own, theirs = align.sides(OWN, OTHER, talk)
    q = of_spans(STUDENT, student, own)
    p = of_spans(TEACHER, teacher, theirs)
    assert q.keys() == p.keys()
    for n in q:
      a, b = np.exp(p[n] / TEMPERATURE), np.exp(q[n] / TEMPERATURE)
      wanted += a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
      count += 1
  objective = jax.jit(objectives.translating(STUDENT, TEACHER, SPANS))
  total, denominator, _ = objective(student, teacher, inputs([[0, 1], [2]]))
  np.testing.assert_allclose(total, wanted, rtol=1e-4)
  assert float(denominator) == count


def test_distances_are_where_both_go_on(student, teacher):
  """Sorted probabilities, where a span begins on both sides."""
  wanted = count = 0.0
  for talk in TALKS:
    sides = align.sides(OWN, OTHER, talk)
    found = []
    for side, model, params in zip(
      sides, (STUDENT, TEACHER), (student, teacher), strict=True
    ):
      every = logprobs(model, params, side["tokens"])
      first = {int(n): i for i, n in reversed([*enumerate(side["spans"])])}
      first.pop(0)
      found.append({n: np.sort(np.exp(every[i - 1])) for n, i in first.items()})
    for n, q in found[0].items():
      p = found[1][n]
      size = max(len(p), len(q))
      p, q = (np.pad(x, (size - len(x), 0)) for x in (p, q))
      wanted += np.abs(p - q).sum()
      count += 1
  objective = jax.jit(objectives.translating(STUDENT, TEACHER, universal.loss))
  total, denominator, _ = objective(student, teacher, inputs([[2, 0], [1]]))
  np.testing.assert_allclose(total, wanted, rtol=1e-4)
  assert float(denominator) == count


@pytest.mark.parametrize("name", LOSSES)
def test_packing_changes_nothing(name, student, teacher):
  objective = objectives.translating(STUDENT, TEACHER, LOSSES[name])
  slope = jax.jit(
    jax.value_and_grad(lambda p, told: objective(p, teacher, told)[0])
  )
  ways = ([[0], [1], [2]], [[2, 0], [1]])
  one, other = (slope(student, inputs(rows)) for rows in ways)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
    one,
    other,
  )
  assert float(one[0]) > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_teacher_that_is_the_student_teaches_nothing(name, student):
  """Its own tokens, too: every span is one token, and says the same.

  The distance of sorted masses has a kink where they are equal, so that its
  slope there is whatever rounding makes of it: only its value is looked at, and
  held to fp32's rounding of 34 sums over a vocabulary.
  """
  objective = objectives.translating(STUDENT, STUDENT, LOSSES[name])
  told = inputs([[0, 1], [2]], theirs=OWN)
  cost = lambda p: objective(p, student, told)[0]
  total, grads = jax.jit(jax.value_and_grad(cost))(student)
  np.testing.assert_allclose(total, 0, atol={"spans": 1e-5}.get(name, 4e-5))
  if name == "spans":
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) < 1e-4
  moved = jax.tree.map(lambda x: 1.1 * x, student)
  assert jax.jit(cost)(moved) > 1e-3
