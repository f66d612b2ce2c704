"""What a student and a teacher of two vocabularies say to one another."""

import dataclasses
import functools
import importlib
import math
import pkgutil
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.losses
from research.algorithms import grpo
from research.losses import (
  attention_relations,
  forward_kl,
  hidden_relations,
  minillm,
  sampled_reverse_kl,
  supervised,
)
from research.models import presets, transformer
from research.training import objectives
from research.types import Batch, Dense, Sampled, Trajectory

SHARED = 5  # of the student's 6 rows and the teacher's 8
STUDENT = presets.make("tiny", vocab=6)
TEACHER = presets.make("tiny", vocab=8, tied=False, width=32)


def batch():
  ids = jax.random.randint(jax.random.key(0), (2, 9), 0, SHARED)
  positions = jnp.broadcast_to(jnp.arange(9)[None], (2, 9))
  weights = jnp.ones((2, 9)).at[:, -1].set(0)
  return Batch(ids, weights, positions, jnp.ones((2, 9), jnp.int32))


@jax.jit
def value_and_grad(teacher):
  objective = objectives.matching(
    STUDENT, TEACHER, forward_kl.loss, tokens=SHARED
  )
  student = transformer.init(STUDENT, jax.random.key(1))
  total = lambda p: objective(p, teacher, batch())[0]
  return jax.value_and_grad(total)(student)


def test_rows_that_pad_a_vocabulary_say_nothing():
  teacher = transformer.init(TEACHER, jax.random.key(2))
  value, grads = value_and_grad(teacher)
  loud = teacher["unembed_VD"].at[SHARED:].set(9.0)
  again, same = value_and_grad(teacher | {"unembed_VD": loud})
  np.testing.assert_array_equal(value, again)
  jax.tree.map(np.testing.assert_array_equal, grads, same)
  assert value > 0 and not np.any(grads["embed_VD"][SHARED:])
  other, _ = value_and_grad(
    teacher | {"unembed_VD": teacher["unembed_VD"].at[0].set(9.0)}
  )
  assert abs(other - value) > 1e-3


@pytest.mark.parametrize("loss", [forward_kl.loss, minillm.loss])
def test_a_padding_row_that_a_student_writes_weighs_nothing(loss):
  """The teacher has no such row, or another thing there."""
  objective = jax.jit(
    objectives.matching(STUDENT, TEACHER, loss, tokens=SHARED)
  )
  student = transformer.init(STUDENT, jax.random.key(1))
  teacher = transformer.init(TEACHER, jax.random.key(2))
  rows = batch()
  written = dataclasses.replace(rows, tokens_BT=rows.tokens_BT.at[0, 4].set(5))
  total, denominator, _ = objective(student, teacher, written)
  _, whole, _ = objective(student, teacher, rows)
  assert np.isfinite(total) and float(whole) - float(denominator) == 1


def test_a_teacher_says_how_likely_it_finds_each_token():
  """Its own parameters, so the estimate is 0; and of others it is not."""
  objective = objectives.matching(TEACHER, TEACHER, sampled_reverse_kl.loss)
  own, other = (
    transformer.init(TEACHER, jax.random.key(key)) for key in (2, 3)
  )
  both = jax.jit(jax.value_and_grad(lambda p, t: objective(p, t, batch())[0]))
  for frozen, equal in ((own, True), (other, False)):
    total, grads = both(own, frozen)
    assert bool(total == 0) == equal
    assert bool(np.any(grads["embed_VD"])) != equal


def test_two_vocabularies_want_to_know_what_they_share():
  with pytest.raises(ValueError, match="6 rows and the teacher 8"):
    objectives.matching(STUDENT, TEACHER, forward_kl.loss)
  same = dataclasses.replace(TEACHER, vocab=6)
  objectives.matching(STUDENT, same, forward_kl.loss)


WIDE = presets.make("tiny", vocab=1000, width=32, mlp=64)
B, T = 4, 32
LOSSES = {
  m.name: importlib.import_module(f"research.losses.{m.name}").loss
  for m in pkgutil.iter_modules(research.losses.__path__)
}


def inner_jaxprs(jaxpr):
  for equation in jaxpr.eqns:
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      value = getattr(value, "jaxpr", value)
      if hasattr(value, "eqns"):
        yield value


def most_made(f, *args):
  def walk(jaxpr):
    sizes = [math.prod(v.aval.shape) for e in jaxpr.eqns for v in e.outvars]
    return max([0, *sizes, *map(walk, inner_jaxprs(jaxpr))])

  return walk(jax.make_jaxpr(f)(*args).jaxpr)


def trained_by(name):
  """(objective, frozen, inputs) of one of the losses, eight tokens a block."""
  shape = jnp.zeros((B, T), jnp.int32)
  batch = Batch(shape, shape * 1.0, shape, shape + 1)
  if name.startswith("grpo"):
    values = shape * 1.0
    trajectory = Trajectory(
      shape, shape, shape + 1, values, values, values, shape, values, shape
    )
    full = name == "grpo_full"  # KL over the whole vocabulary
    terms = {"kl": "full", "beta": 0.1} if full else {}
    objective = objectives.policy_gradient(
      WIDE,
      functools.partial(grpo.loss, **terms),
      temperature=1.0,
      block=8,
      reference=WIDE if full else None,
    )
    frozen = transformer.init(WIDE, jax.random.key(4)) if full else None
    return objective, frozen, (trajectory, values)
  loss = functools.partial(LOSSES[name], block=8)
  if name == "supervised":
    return objectives.imitation(WIDE, loss), None, batch
  teacher = transformer.init(WIDE, jax.random.key(4))
  return objectives.matching(WIDE, WIDE, loss, block=8), teacher, batch


def heard_by(kind):
  hints = {n: typing.get_type_hints(f)["signal"] for n, f in LOSSES.items()}
  return [n for n in hints if hints[n] is kind]


@pytest.mark.parametrize(
  "name", ["grpo", "grpo_full", *heard_by(Sampled), *heard_by(Dense)]
)
def test_no_trainer_makes_all_logits(name):
  objective, frozen, inputs = trained_by(name)
  params = transformer.init(WIDE, jax.random.key(3))
  total = lambda p: objective(p, frozen, inputs)[0]
  assert most_made(jax.grad(total), params) < B * T * WIDE.vocab / 2


def test_all_logits_would_be_seen():
  """The dense way, made on purpose, is what the test above looks for."""
  params = transformer.init(WIDE, jax.random.key(3))

  def dense(params):
    batch = trained_by("supervised")[2]
    said = objectives.speak(WIDE, params, batch)
    return jax.nn.logsumexp(said.log_probs(said.hidden_BTE[0])).sum() + (
      jnp.einsum("BTE,VE->BTV", said.hidden_BTE, said.unembed_VE).sum()
    )

  assert most_made(jax.grad(dense), params) >= B * T * WIDE.vocab


def test_each_domain_has_a_teacher_of_its_own():
  """Two teachers of two widths: a step is its own domain's alone."""
  slim = dataclasses.replace(TEACHER, width=16)
  both = [(TEACHER, jax.random.key(2)), (slim, jax.random.key(3))]
  teachers = [transformer.init(model, key) for model, key in both]
  alone = [
    objectives.matching(STUDENT, model, forward_kl.loss, tokens=SHARED)
    for model, _ in both
  ]
  objective = objectives.by_domain(alone)
  student = transformer.init(STUDENT, jax.random.key(1))
  of = lambda f: jax.jit(jax.value_and_grad(lambda p, *args: f(p, *args)[0]))
  whole, values = of(objective), []
  for which, teacher in enumerate(teachers):
    value, slope = whole(student, teachers, (batch(), jnp.full(2, which)))
    once, own = of(alone[which])(student, teacher, batch())
    np.testing.assert_allclose(value, once, rtol=1e-6)
    close = functools.partial(np.testing.assert_allclose, atol=2e-5)
    jax.tree.map(close, slope, own)
    values += [value]
  assert abs(values[0] - values[1]) > 1e-2


RELATIONS = {
  attention_relations: {"heads": 2, "block": 8},
  hidden_relations: {"heads": 4, "block": 8},
}


@pytest.mark.parametrize("module", RELATIONS)
def test_a_student_comes_to_resemble_its_teacher(module):
  """Of another width, by plain descent on the relations alone."""
  loss = functools.partial(module.loss, share=1.0, **RELATIONS[module])
  objective = objectives.resembling(STUDENT, TEACHER, loss)
  teacher = transformer.init(TEACHER, jax.random.key(2))

  @jax.jit
  def step(params):
    def mean(params):
      total, denominator, _ = objective(params, teacher, batch())
      return total / denominator

    value, slope = jax.value_and_grad(mean)(params)
    return value, jax.tree.map(lambda p, g: p - 0.03 * g, params, slope)

  params, seen = transformer.init(STUDENT, jax.random.key(1)), []
  for _ in range(60):
    value, params = step(params)
    seen += [float(value)]
  assert seen[-1] < 0.5 * seen[0]


@pytest.mark.parametrize("module", RELATIONS)
def test_without_a_share_the_text_alone_is_learned(module):
  loss = functools.partial(module.loss, share=0.0, **RELATIONS[module])
  student = transformer.init(STUDENT, jax.random.key(1))
  teacher = transformer.init(TEACHER, jax.random.key(2))
  objective = jax.jit(objectives.resembling(STUDENT, TEACHER, loss))
  found, denominator, metrics = objective(student, teacher, batch())
  plain, whole, _ = objectives.imitation(STUDENT, supervised.loss)(
    student, None, batch()
  )
  np.testing.assert_allclose(found / denominator, plain / whole, rtol=1e-5)
  assert metrics["relations"][0] > 0


def test_domains_may_measure_different_things():
  """MiniLLM beside plain text: what a step does not measure is 0 of 0."""
  taught = objectives.matching(STUDENT, TEACHER, minillm.loss, tokens=SHARED)
  plain = objectives.imitation(STUDENT, supervised.loss)
  objective = jax.jit(objectives.by_domain([taught, plain]))
  student = transformer.init(STUDENT, jax.random.key(1))
  frozen = [transformer.init(TEACHER, jax.random.key(2)), None]
  seen = [
    objective(student, frozen, (batch(), jnp.full(2, which)))
    for which in range(2)
  ]
  assert [float(metrics["kl"][1]) for *_, metrics in seen] == [16.0, 0.0]
  once = plain(student, None, batch())[0]
  np.testing.assert_allclose(seen[1][0], once, rtol=1e-6)
