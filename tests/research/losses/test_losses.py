"""Each loss against dense fp64 references, exact gradients, invariances."""

import importlib
import itertools
import json
import pathlib
import pkgutil
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.losses
from research.losses import (
  forward_kl,
  jsd,
  minillm,
  reverse_kl,
  sampled_reverse_kl,
  skewed_kl,
  supervised,
  top_candidates,
  total_variation,
)
from research.types import Dense, Sampled, Sparse, Written

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"

MODULES = [
  importlib.import_module(f"research.losses.{m.name}")
  for m in pkgutil.iter_modules(research.losses.__path__)
]


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


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_contract(module):
  """(sum, denominator, metrics), blind to what weighs nothing, any blocks."""
  student, signal = dense(0), signal_for(module)
  weights = jnp.array([[1.0, 1, 0, 1, 0], [0, 0, 1, 1, 0]])
  total, denominator, metrics = module.loss(student, signal, weights)
  assert total.shape == denominator.shape == ()
  assert float(denominator) == 5
  assert all(len(pair) == 2 for pair in metrics.values())
  small, _, _ = module.loss(student, signal, weights, block=2)
  np.testing.assert_allclose(total, small, rtol=1e-5)
  hidden = student.hidden_BTE
  loud = Dense(
    jnp.where(weights[..., None] > 0, hidden, 9.0), student.unembed_VE
  )
  again, _, _ = module.loss(loud, signal, weights)
  np.testing.assert_array_equal(total, again)

  def total_of(hidden):
    return module.loss(Dense(hidden, student.unembed_VE), signal, weights)[0]

  grad = jax.grad(total_of)(hidden)
  assert not np.any(grad[weights == 0])
  assert np.all(np.abs(grad[weights > 0]).max(-1) > 0)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_no_weight_is_zero_loss_and_finite_gradient(module):
  student, signal = dense(0), signal_for(module)
  total = lambda h: module.loss(
    Dense(h, student.unembed_VE), signal, jnp.zeros((2, 5))
  )[0]
  value, grad = jax.value_and_grad(total)(student.hidden_BTE)
  assert float(value) == 0 and not np.any(grad)


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def mixture(share, a, b):
  return np.log(share * np.exp(a) + (1 - share) * np.exp(b))


def kl(a, b):
  return (np.exp(a) * (a - b)).sum(-1)


def bucketed(q, p):
  """KL over the teacher's three likeliest tokens and all others as one."""
  cut = np.argsort(-p, -1)
  pick = lambda x, ids: np.exp(np.take_along_axis(x, ids, -1))
  best = [pick(x, cut[..., :3]) for x in (p, q)]
  rest = [pick(x, cut[..., 3:]).sum(-1, keepdims=True) for x in (p, q)]
  a, b = (np.log(np.concatenate(x, -1)) for x in zip(best, rest, strict=True))
  return kl(a, b)


def heard(module, teacher):
  return candidates(teacher, 3) if module is top_candidates else teacher


WHOLE = {
  "candidates": (top_candidates, {}, bucketed),
  "forward": (forward_kl, {}, lambda q, p: kl(p, q)),
  "reverse": (reverse_kl, {}, lambda q, p: kl(q, p)),
  "jsd": (
    jsd,
    {"beta": 0.3},
    lambda q, p: (
      0.3 * kl(p, mixture(0.3, p, q)) + 0.7 * kl(q, mixture(0.3, p, q))
    ),
  ),
  "jsd at 0": (jsd, {"beta": 0.0}, lambda q, p: kl(p, q)),
  "jsd at 1": (jsd, {"beta": 1.0}, lambda q, p: kl(q, p)),
  "skewed": (
    skewed_kl,
    {"alpha": 0.2},
    lambda q, p: kl(p, mixture(0.2, p, q)),
  ),
  "skewed, in reverse": (
    skewed_kl,
    {"alpha": 0.2, "reverse": True},
    lambda q, p: kl(q, mixture(0.2, q, p)),
  ),
  "total variation": (
    total_variation,
    {},
    lambda q, p: np.abs(np.exp(p) - np.exp(q)).sum(-1) / 2,
  ),
}


def over_vocabulary(divergence, hidden, unembed, teacher, weights):
  """The weighted sum in NumPy, from the student's two arrays."""
  q = log_softmax(hidden @ unembed.T)
  p = log_softmax(
    np.asarray(teacher.hidden_BTE) @ np.asarray(teacher.unembed_VE).T
  )
  return (weights * divergence(q, p)).sum()


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype, rtol", [(jnp.float64, 1e-10), (None, 1e-5)])
def test_values_equal_numpy(name, dtype, rtol):
  module, args, divergence = WHOLE[name]
  with jax.enable_x64(dtype is not None):
    dtype = dtype or jnp.float32
    student, teacher = dense(0, dtype=dtype), dense(1, E=6, dtype=dtype)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    expected = over_vocabulary(
      divergence,
      np.asarray(student.hidden_BTE, float),
      np.asarray(student.unembed_VE, float),
      teacher,
      weights,
    )
    total, _, _ = module.loss(
      student, heard(module, teacher), jnp.asarray(weights, dtype), **args
    )
    np.testing.assert_allclose(total, expected, rtol=rtol)


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_equal_differences_of_numpy(name):
  """Central differences of the reference, in fp64, by hidden and unembed."""
  module, args, divergence = WHOLE[name]
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, dtype=jnp.float64)
    weights = np.linspace(0, 1, 10).reshape(2, 5)
    total = lambda h, u: module.loss(
      Dense(h, u), heard(module, teacher), jnp.asarray(weights), **args
    )[0]
    arrays = [np.array(x) for x in (student.hidden_BTE, student.unembed_VE)]
    found = jax.grad(total, (0, 1))(*map(jnp.asarray, arrays))
    reference = lambda: over_vocabulary(divergence, *arrays, teacher, weights)
    for x, got in zip(arrays, found, strict=True):
      for at in np.ndindex(x.shape):
        kept, step = x[at], 1e-6
        x[at] = kept + step
        high = reference()
        x[at] = kept - step
        low, x[at] = reference(), kept
        np.testing.assert_allclose(got[at], (high - low) / 2e-6, atol=2e-9)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_jsd_equals_trl(beta):
  """tests/oracle/trl_worker.py says how these numbers were made."""
  said = json.loads((GOLDEN / "trl_distillation.json").read_text())
  said = said[f"jsd_{beta}"]
  draw = lambda n: np.random.default_rng(n).normal(size=(2, 5, 7)) * 2
  weights = np.ones((2, 5))
  weights[0, 3:], weights[1, 0] = 0, 0
  with jax.enable_x64(True):
    eye = jnp.eye(7)
    teacher = Dense(jnp.asarray(draw(1)), eye)

    def mean(logits):
      total, denominator, _ = jsd.loss(
        Dense(logits, eye), teacher, jnp.asarray(weights), beta=beta
      )
      return total / denominator

    value, grad = jax.value_and_grad(mean)(jnp.asarray(draw(0)))
    np.testing.assert_allclose(value, said["loss"], rtol=1e-6)
    norm = np.linalg.norm(np.asarray(grad))
    np.testing.assert_allclose(norm, said["gradient"], rtol=1e-6)


def test_jsd_between_known_distributions():
  student, teacher = one_token(0.25, 0.75), one_token(0.5, 0.5)
  for beta, known in ((0.1, 0.012752), (0.5, 0.033822), (0.9, 0.011831)):
    total, _, _ = jsd.loss(student, teacher, jnp.ones((1, 1)), beta=beta)
    np.testing.assert_allclose(total, known, atol=1e-6)


@pytest.mark.parametrize("args", [{"beta": -0.1}, {"beta": 1.5}])
def test_a_beta_that_is_no_share_is_refused(args):
  with pytest.raises(ValueError, match="beta"):
    jsd.loss(dense(0), dense(1), jnp.ones((2, 5)), **args)
  with pytest.raises(ValueError, match="alpha"):
    skewed_kl.loss(dense(0), dense(1), jnp.ones((2, 5)), alpha=0.0)


def spiked(c):
  """A teacher over 100 tokens, and a student with c more at token 50."""
  logits = np.zeros(100)
  logits[:5] = [5, 4, 3, 2, 1]
  teacher = log_softmax(logits)
  best = np.arange(5)[None, None]
  tail = np.log(np.exp(teacher[5:]).sum())[None, None]
  signal = Sparse(best, teacher[:5][None, None], tail)
  logits[50] += c
  return logits, teacher, signal


@pytest.mark.parametrize(
  "c, bucketed", [(0, 0), (5, 0.099827), (10, 2.643475), (20, 9.735423)]
)
def test_mass_outside_of_the_candidates_costs(c, bucketed):
  """Renormalised over the candidates, all of these would be 0."""
  with jax.enable_x64(True):
    logits, _, signal = spiked(c)
    student = Dense(jnp.ones((1, 1, 1)), jnp.asarray(logits)[:, None])
    total, _, metrics = top_candidates.loss(
      student, jax.tree.map(jnp.asarray, signal), jnp.ones((1, 1))
    )
    np.testing.assert_allclose(total, bucketed, atol=1e-4)
    outside = 1 - np.exp(log_softmax(logits)[:5]).sum()
    np.testing.assert_allclose(metrics["outside"][0], outside, rtol=1e-9)


def test_candidates_cost_what_is_inside_too():
  """The student has less outside than the teacher: still no gain from it."""
  with jax.enable_x64(True):
    logits, _, signal = spiked(0)
    logits[5:] -= 20
    student = Dense(jnp.ones((1, 1, 1)), jnp.asarray(logits)[:, None])
    total, _, _ = top_candidates.loss(
      student, jax.tree.map(jnp.asarray, signal), jnp.ones((1, 1))
    )
    assert float(total) > 0.1


@pytest.mark.parametrize("C", [1, 3, 5, 7])
def test_more_candidates_come_closer_to_the_whole(C):
  """Below the KL over the vocabulary, equal to it at C = V, with its slope."""
  with jax.enable_x64(True):
    student = dense(0, dtype=jnp.float64)
    teacher = dense(1, E=6, dtype=jnp.float64)
    weights = jnp.linspace(0, 1, 10).reshape(2, 5)

    def total(module, signal):
      f = lambda h: module.loss(Dense(h, student.unembed_VE), signal, weights)[
        0
      ]
      return jax.value_and_grad(f)(student.hidden_BTE)

    whole, slope = total(forward_kl, teacher)
    part, own = total(top_candidates, candidates(teacher, C))
    assert np.isfinite(own).all() and 0 < part <= whole + 1e-12
    if C == 7:
      np.testing.assert_allclose(part, whole, rtol=1e-12)
      np.testing.assert_allclose(own, slope, atol=1e-12)
    else:
      fewer, _ = total(top_candidates, candidates(teacher, max(C - 1, 1)))
      assert fewer <= part < whole


def test_named_directions():
  """Teacher (.5, .5), student (.25, .75): known values, in nats."""
  student, teacher = one_token(0.25, 0.75), one_token(0.5, 0.5)
  one = jnp.ones((1, 1))
  forward, _, _ = forward_kl.loss(student, teacher, one)
  reverse, _, _ = reverse_kl.loss(student, teacher, one)
  np.testing.assert_allclose(forward, 0.143841, atol=1e-6)
  np.testing.assert_allclose(reverse, 0.130812, atol=1e-6)
  hot, _, _ = forward_kl.loss(student, teacher, one, temperature=2.0)
  assert abs(float(hot) - 0.143841) > 1e-3


DENSE = [forward_kl, reverse_kl, jsd, skewed_kl, total_variation]


@pytest.mark.parametrize("module", DENSE)
def test_a_student_that_is_its_teacher_loses_nothing(module):
  same = dense(0)
  total, _, _ = module.loss(same, same, jnp.ones((2, 5)))
  np.testing.assert_allclose(total, 0, atol=1e-5)


@pytest.mark.parametrize("module", DENSE)
def test_certain_distributions_stay_finite(module):
  """Logits 1e4 apart: one probability underflows to exactly 0."""
  sure = Dense(jnp.ones((1, 1, 1)), jnp.array([[0.0], [-1e4]]))
  other = one_token(0.5, 0.5)
  for student, teacher in ((sure, other), (other, sure)):
    grad = jax.grad(
      lambda h, s=student, t=teacher: module.loss(
        Dense(h, s.unembed_VE), t, jnp.ones((1, 1))
      )[0]
    )(student.hidden_BTE)
    assert np.all(np.isfinite(grad))


def test_supervised_on_uniform_logits():
  """Completions of 3 and 4 tokens, V=11: 7 scored tokens, 7 ln 11 in all."""
  student = Dense(jnp.ones((2, 9, 3)), jnp.zeros((11, 3)))
  weights = np.zeros((2, 9), np.float32)
  weights[0, 1:4], weights[1, 4:8] = 1, 1
  signal = Sampled(jnp.ones((2, 9), jnp.int32))
  total, denominator, _ = supervised.loss(student, signal, jnp.asarray(weights))
  np.testing.assert_allclose(total, 16.785267, rtol=1e-6)
  assert float(denominator) == 7


def test_sampled_reverse_kl_has_the_exact_gradient_in_expectation():
  """Sum over the vocabulary of pi(y) times the gradient: KL(q || p)'s own."""
  with jax.enable_x64(True):
    logits = jnp.array([0.0, 1.0, 2.0], jnp.float64)
    teacher = jax.nn.log_softmax(jnp.array([1.0, 1.0, 0.0], jnp.float64))

    def kl(logits):
      q = jax.nn.log_softmax(logits)
      return (jnp.exp(q) * (q - teacher)).sum()

    def sampled(logits, token):
      student = Dense(jnp.ones((1, 1, 1), jnp.float64), logits[:, None])
      signal = Sampled(jnp.full((1, 1), token), teacher[token][None, None])
      return sampled_reverse_kl.loss(student, signal, jnp.ones((1, 1)))[0]

    q = jax.nn.softmax(logits)
    expected = sum(q[y] * jax.grad(sampled)(logits, y) for y in range(3))
    known = [-0.201709, -0.303574, 0.505283]
    np.testing.assert_allclose(expected, jax.grad(kl)(logits), atol=1e-10)
    np.testing.assert_allclose(expected, known, atol=1e-6)
    exact = jax.grad(
      lambda x: reverse_kl.loss(
        Dense(jnp.ones((1, 1, 1), jnp.float64), x[:, None]),
        Dense(jnp.ones((1, 1, 1), jnp.float64), teacher[:, None]),
        jnp.ones((1, 1)),
      )[0]
    )(logits)
    np.testing.assert_allclose(exact, known, atol=1e-6)


def test_sampled_reverse_kl_wants_the_teachers_numbers():
  signal = Sampled(jnp.zeros((2, 5), jnp.int32))
  with pytest.raises(ValueError, match="log-probability"):
    sampled_reverse_kl.loss(dense(0), signal, jnp.ones((2, 5)))


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
