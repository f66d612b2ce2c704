"""Answers by choice: the likeliest, against a dense reference in fp64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import reading, run, settings, student
from experiments.stages import choose
from research import sharding
from research.data import packing, text
from research.models import transformer
from research.types import Problem, Verdict
from tests.experiments import tiny

HERE = "tests.experiments.test_choose"
ANSWERS = ["b", "not so", "it may be so"]
MESH = sharding.make_mesh()


def problems(split, seed, *, count=12, right=(0, 0, 0, 1, 2, 1)):
  """Which answer is right: that of the first place half of the time."""
  del split, seed
  for i in range(count):
    answer = ANSWERS[right[i % len(right)]]
    yield Problem("?" * (i + 1), answer, {"key": f"{i}", "difficulty": 1})


def reward(problem, told):
  right = told == problem.answer
  return Verdict("correct", 1.0) if right else Verdict("wrong", 0.0)


def stage(**changes):
  c = tiny.get_config("distil").to_dict()
  told = {
    "stage": "experiments.stages.choose",
    "students": ["annotate", "distilled"],
    "problems": {"task": HERE, "split": "test", "args": {}},
    "count": 12,
    "answers": ANSWERS,
    "rows": 5,
    "length": 40,
    "prefix": "x/",
    "pairs": [["distilled", "annotate"]],
  }
  c["choose"] = told | changes
  c["stages"] = ("annotate", "distilled", "choose")
  return run.plan(c)["choose"][1]


def params_of(config, name):
  """Some parameters a student, far enough from a fresh start to prefer."""
  fresh = transformer.init(config.run.model, jax.random.key(len(name)))
  return jax.tree.map(lambda x: 4 * np.asarray(x), fresh)


@pytest.fixture
def chosen(monkeypatch, tmp_path):
  """chosen(**changes): the outputs of the stage."""
  load = lambda config, inputs, name, mesh: params_of(config, name)
  monkeypatch.setattr(student, "load", load)
  return lambda **changes: choose.run(stage(**changes), {}, tmp_path)


def said(config, params, pairs):
  """Each answer's log-probability and its tokens: dense, in fp64, by hand."""
  tokenizer = settings.load_tokenizer(config.run)
  examples = [
    text.example(tokenizer, {"prompt": p.prompt, "completion": answer})
    for p, answer in pairs
  ]
  batch = packing.to_batch([[e] for e in examples], 40, pad=0)
  model = config.run.model
  speak = jax.jit(lambda *rows: transformer.apply(model, params, *rows)[0])
  hidden = speak(batch.tokens_BT, batch.positions_BT, batch.segments_BT)
  unembed = transformer.unembedding(model, params)
  logits = np.asarray(hidden, np.float64) @ np.asarray(unembed, np.float64).T
  top = logits.max(-1, keepdims=True)
  logps = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
  for row, example in zip(logps, examples, strict=True):
    places = np.flatnonzero(example["mask"])
    total = sum(row[t - 1, example["tokens"][t]] for t in places)
    yield total, len(places)


@pytest.mark.parametrize("per_token", [False, True])
def test_the_likeliest_is_given(chosen, per_token):
  config = stage(per_token=per_token)
  told = chosen(per_token=per_token)
  asked = list(problems("test", 0))
  share = {}
  for name in config.students:
    params = params_of(config, name)
    pairs = itertools.product(asked, ANSWERS)
    means = [
      total / (size if per_token else 1)
      for total, size in said(config, params, pairs)
    ]
    best = np.reshape(means, (-1, len(ANSWERS))).argmax(1)
    gave = [ANSWERS[i] for i in best]
    assert told["gave"][name] == {a: gave.count(a) for a in ANSWERS}
    right = [g == p.answer for g, p in zip(gave, asked, strict=True)]
    share[name] = np.mean(right)
    found = told["summary"][f"x/{name}/accuracy"]
    assert found["mean"] == pytest.approx(share[name]) and found["n"] == 12
    less = told["summary"][f"x/{name}_minus_majority/accuracy"]
    assert less["mean"] == pytest.approx(share[name] - 0.5)
  assert told["summary"]["x/majority/accuracy"]["mean"] == 0.5
  pair = told["summary"]["x/distilled_minus_annotate/accuracy"]["mean"]
  assert pair == pytest.approx(share["distilled"] - share["annotate"])
  assert (told["asked"], told["left_out"]) == (12, 0)


def test_length_counts_unless_it_is_divided_by(chosen):
  """The control: the two ways do not give the same answers."""
  assert chosen()["gave"] != chosen(per_token=True)["gave"]


def test_log_probabilities_sum_to_one_over_all_answers(monkeypatch):
  """All texts of one token, then the end, or another token: one in all."""
  config = stage()
  params = params_of(config, "distilled")
  tokenizer = settings.load_tokenizer(config.run)
  opening = text.render(
    tokenizer, [{"role": "user", "content": "?"}], generate=True
  ).ids
  make = lambda i: {
    "tokens": np.append(opening, i).astype(np.int32),
    "mask": np.append(0 * opening, 1).astype(np.int8),
  }
  rows = [[make(i)] for i in range(config.run.model.vocab)]
  batch = sharding.place(packing.to_batch(rows, 8, pad=tokenizer.pad), MESH)
  nats = reading.nats(config.run.model, MESH, params, batch).sum(1)
  assert np.exp(-np.asarray(nats, np.float64)).sum() == pytest.approx(
    1, abs=1e-4
  )


def arrays(jaxpr):
  """The shapes of everything that a program computes, inner ones too."""
  for equation in jaxpr.eqns:
    yield from (v.aval.shape for v in equation.outvars)
    for inner in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
    ):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from arrays(inner)


def test_no_logits_of_a_whole_row():
  config = stage()
  model, params = config.run.model, params_of(config, "distilled")
  T, V = 2048, model.vocab
  example = {"tokens": np.zeros(T, np.int32), "mask": np.ones(T, np.int8)}
  batch = packing.to_batch([[example]] * 2, T, pad=0)
  program = jax.make_jaxpr(lambda p, b: reading.nats(model, MESH, p, b))(
    params, jax.tree.map(jnp.asarray, batch)
  )
  shapes = list(arrays(program.jaxpr))
  largest = max(math.prod(s) for s in shapes if s and s[-1] == V)
  assert 0 < largest <= 512 * V
  dense = jax.make_jaxpr(lambda h, u: h @ u.T)(
    jnp.ones((2 * T, 8)), jnp.ones((V, 8))
  )
  assert any(math.prod(s) == 2 * T * V for s in arrays(dense.jaxpr))


def test_problems_that_do_not_fit_are_counted(chosen, monkeypatch):
  alike = lambda *_: dict.fromkeys(range(3 * len(fitting)), (1.0, 1.0))
  monkeypatch.setattr(reading, "costs", alike)
  longest = lambda p: len(p.prompt) + len(ANSWERS[2]) + 4  # roles and ends
  fitting = [p for p in problems("test", 0) if longest(p) <= 22]
  assert 0 < len(fitting) < 12
  told = chosen(length=22)
  assert told["asked"] == len(fitting) and told["left_out"] == 12 - len(fitting)
  with pytest.raises(ValueError, match=r"none of 12 problems fits 9 tokens"):
    chosen(length=9)


def test_one_answer_is_right(chosen):
  for answers in (["b", "c"], ["c", "d"]):
    with pytest.raises(ValueError, match=r"0 of \('\w', '\w'\) are right for"):
      chosen(answers=answers)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"answers": ["b"]}, "not two different answers"),
    ({"answers": ["b", "b"]}, "not two different answers"),
    ({"rows": 0}, "must be at least 1"),
    ({"prefix": "x"}, "no name and a slash"),
    ({"length": 97}, "longer than the model's context of 96"),
    ({"pairs": [["distilled", "nobody"]]}, "nobody"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)


def test_rows_do_not_matter(chosen):
  assert chosen(rows=7, length=90)["gave"] == chosen()["gave"]
