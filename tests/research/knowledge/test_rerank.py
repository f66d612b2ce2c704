"""The reranker's loss against fp64, and what it reads of a decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import sharding
from research.data import text
from research.knowledge import rerank
from research.models import presets, transformer
from research.training import objectives
from research.types import Dense

TAU = {"tau1": 1.7, "tau2": 0.6}
BYTES = text.load_tokenizer("bytes")
MODEL = presets.make("tiny", width=32, layers=1, kv_heads=1, mlp=32)
ASKED = [
  ("part kind axe?", ["kind axe tool", "part tool grip", "kind saw tool"]),
  ("kind kind saw?", ["kind saw tool", "kind tool thing"]),
]


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def oracle(f, target):
  """KL(Q || P) and its gradient: (P - Q) / tau2, a row at a time."""
  total, gradient = 0.0, np.zeros_like(f)
  for b, row in enumerate(target):
    there = np.isfinite(row)
    q = softmax(row[there] / TAU["tau1"])
    p = softmax(f[b, there] / TAU["tau2"])
    total += (q * np.log(q / p)).sum()
    gradient[b, there] = (p - q) / TAU["tau2"]
  return total, gradient


def drawn():
  rng = np.random.default_rng(0)
  f, target = rng.normal(0, 2, (2, 4, 5))
  target[1, 3:] = target[2, 1:] = -np.inf
  return f, target


def ours(f, target):
  one = lambda f: rerank.loss(f, jnp.asarray(target), **TAU)[0]
  return jax.value_and_grad(one)(jnp.asarray(f))


def test_loss_and_gradient_are_the_oracles():
  f, target = drawn()
  expected = oracle(f, target)
  with jax.enable_x64(True):
    for found, wanted in zip(ours(f, target), expected, strict=True):
      np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
  found = ours(f.astype(np.float32), target.astype(np.float32))
  for x, wanted in zip(found, expected, strict=True):
    np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-5)


def test_a_shuffled_order_is_another_loss():
  f, target = drawn()
  shuffled = target.copy()
  shuffled[0] = target[0, ::-1]
  with jax.enable_x64(True):
    value, gradient = ours(f, shuffled)
  expected = oracle(f, target)
  assert abs(float(value) - expected[0]) > 1e-3
  assert np.abs(np.asarray(gradient) - expected[1]).max() > 1e-3


def test_what_agrees_costs_nothing():
  _, target = drawn()
  f = jnp.asarray(np.where(np.isfinite(target), target, 9), jnp.float32)
  cost, rows, told = rerank.loss(f, jnp.asarray(target), tau1=2.0, tau2=2.0)
  assert float(cost) == pytest.approx(0, abs=1e-5) and float(rows) == 4
  assert tuple(map(float, told["top"])) == (4, 4)


def laid(asked=ASKED, length=192):
  questions = [rerank.examples(BYTES, *one) for one in asked]
  targets = [[float(i) for i in range(len(row))] for row in questions]
  rows = rerank.lay_out(
    questions, targets, length=length, candidates=3, pad=BYTES.pad
  )
  return jax.tree.map(jnp.asarray, rows)


@pytest.fixture(scope="module")
def params():
  return transformer.init(MODEL, jax.random.key(0))


@pytest.mark.parametrize("softcap", [None, 0.5])
def test_log_odds_are_those_of_the_whole_distribution(params, softcap):
  rows = laid()
  spoken = jax.jit(lambda p: objectives.speak(MODEL, p, rows))(params)
  spoken = Dense(spoken.hidden_BTE, spoken.unembed_VE, softcap)
  no, yes = rerank.answers(BYTES)
  assert (no, yes) == (ord("n"), ord("y"))
  found = rerank.log_odds(spoken, rows.ends_BC, (no, yes))
  for b, (question, passages) in enumerate(ASKED):
    for c, passage in enumerate(passages):
      asked = [{"role": "user", "content": f"{question}\n{passage}"}]
      ids = text.render(BYTES, asked, generate=True).ids
      end = int(rows.ends_BC[b, c])
      start = end + 1 - len(ids)
      np.testing.assert_array_equal(rows.tokens_BT[b, start : end + 1], ids)
      logp = spoken.log_probs(spoken.hidden_BTE[b, end][None])[0]
      np.testing.assert_allclose(
        found[b, c], logp[yes] - logp[no], rtol=1e-5, atol=1e-5
      )


def test_a_candidate_is_judged_as_if_it_were_alone(params):
  mesh = sharding.make_mesh()
  together = rerank.judge(MODEL, params, BYTES, ASKED, rows=2, mesh=mesh)
  assert [len(scores) for scores in together] == [3, 2]
  for (question, passages), scores in zip(ASKED, together, strict=True):
    alone = [(question, [passage]) for passage in passages]
    apart = rerank.judge(MODEL, params, BYTES, alone, rows=4)
    np.testing.assert_allclose(
      np.concatenate(apart), scores, rtol=1e-4, atol=1e-5
    )


def shapes(jaxpr):
  """The shape of every array that a program makes, its inner ones included."""
  for equation in jaxpr.eqns:
    yield from (v.aval.shape for v in equation.outvars if hasattr(v, "aval"))
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from shapes(inner)


def test_no_array_has_time_and_vocabulary(params):
  T, V = 200, MODEL.vocab
  rows = laid(length=T)
  objective = rerank.imitation(MODEL, (110, 121), None, **TAU)

  def wide(f):
    made = jax.make_jaxpr(f)(params).jaxpr
    return [shape for shape in shapes(made) if T in shape and V in shape]

  step = lambda params: jax.grad(lambda p: objective(p, None, rows)[0])(params)
  assert not wide(step)
  spoken = lambda p: objectives.speak(MODEL, p, rows)
  dense = lambda p: spoken(p).hidden_BTE @ spoken(p).unembed_VE.T
  assert wide(dense)


def test_rows_that_are_too_short_are_an_error():
  with pytest.raises(ValueError, match="more than the length 40"):
    laid(length=40)


def test_answers_that_begin_alike_are_an_error():
  class Alike:
    name = "alike"

    def encode(self, text):
      return [7, len(text)]

  with pytest.raises(ValueError, match="begins yes and no with one token"):
    rerank.answers(Alike())  # type: ignore[arg-type]


def test_the_decoder_gets_no_new_parameters(params):
  objective = rerank.imitation(MODEL, (110, 121), None, **TAU)
  grads = jax.eval_shape(
    jax.grad(lambda p: objective(p, None, laid())[0]), params
  )
  assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
