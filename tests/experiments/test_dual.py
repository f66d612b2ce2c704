"""Whose turn it is, what it reads and minimises, and that it is resumed."""

import json

import jax
import numpy as np
import pytest

from experiments import settings, student
from experiments.settings import build
from experiments.stages import dual
from research.losses import forward_kl, supervised
from research.models import presets, transformer
from research.training import objectives

MODEL = presets.make("tiny", width=32, layers=1)


@pytest.fixture
def config(tmp_path):
  """config(**fields): the domain's texts are of "a", general ones of "b"."""

  def make(**fields):
    for name in "ab":
      texts = [
        json.dumps({"prompt": name, "completion": name * (1 + i % 7)})
        for i in range(40)
      ]
      (tmp_path / f"{name}.jsonl").write_text("\n".join(texts))
    raw = {
      "run": settings.Run(0, "bytes", MODEL, settings.Mesh()),
      "domain": [{"path": str(tmp_path / "a.jsonl")}],
      "general": [{"path": str(tmp_path / "b.jsonl")}],
      "m": 0.25,
      "teacher": "teacher",
      "loss": {"name": "research.losses.forward_kl"},
      "rows": 2,
      "length": 40,
      "shards": 2,
      "optimizer": {"learning_rate": 1e-3},
      "loop": {"steps": 12, "save_every": 12},
    }
    return build(dual.Config, raw | fields)

  return make


def drawn(turns, steps):
  """Whose turn each step is by its metric and its rows, and what is read."""
  found = [turns.draw(None, step) for step in steps]
  for (_, domain_B), seen in found:
    assert set(np.asarray(domain_B).tolist()) == {seen["general"][0]}
  return [
    (seen["general"][0], np.asarray(batch.tokens_BT).tolist())
    for (batch, _), seen in found
  ]


def test_turns_go_on_where_they_stood(config):
  """Also a control: those that are not put back read something else."""
  make = lambda: dual.Turns(config(m=0.5), {}, None)
  whole = drawn(make(), range(12))
  first, later, fresh = make(), make(), make()
  drawn(first, range(5))
  later.restore(json.loads(json.dumps(first.state())))
  assert drawn(later, range(5, 12)) == whole[5:]
  assert drawn(fresh, range(5, 12)) != whole[5:]


def test_a_turn_reads_its_own_text_in_its_own_share(config):
  told = drawn(dual.Turns(config(), {}, None), range(400))
  for turn, tokens in told:
    read = set(np.ravel(tokens).tolist()) & set(b"ab")
    assert bytes(read).decode() == "ab"[int(turn)]
  share = 1 - np.mean([turn for turn, _ in told])
  assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


@pytest.mark.parametrize("fields", [{"m": 0.0}, {"m": 1.0}, {"general": []}])
def test_one_of_the_two_alone_is_refused(config, fields):
  with pytest.raises(ValueError, match=r"experiments\.stages\.distill"):
    config(**fields)


def test_the_domain_is_read_and_the_teacher_heard_of_general_text(
  config, monkeypatch
):
  """Two teachers differ on general text alone; the student's own says 0."""
  params = jax.jit(transformer.init, static_argnums=0)(MODEL, jax.random.key(0))
  other = jax.tree.map(lambda x: 1.5 * x, params)
  told = lambda teacher: lambda *_: (MODEL, teacher, MODEL.vocab)
  turns = dual.Turns(config(m=0.5), {}, None)
  inputs = {}
  for step in range(12):
    (batch, domain_B), _ = turns.draw(None, step)
    inputs[int(domain_B[0])] = batch, domain_B

  def value(teacher, turn):
    monkeypatch.setattr(student, "teacher", told(teacher))
    objective, frozen = dual._objective(config(), {}, None)
    total, denominator, _ = jax.jit(objective)(params, frozen, inputs[turn])
    return float(total / denominator)

  plain = objectives.imitation(MODEL, supervised.loss)
  heard = objectives.matching(MODEL, MODEL, forward_kl.loss)
  alone = lambda f, frozen, turn: np.divide(
    *jax.jit(f)(params, frozen, inputs[turn][0])[:2]
  )
  np.testing.assert_allclose(value(other, 0), alone(plain, None, 0), rtol=1e-6)
  np.testing.assert_allclose(value(other, 1), alone(heard, other, 1), rtol=1e-6)
  assert value(other, 1) > 0.01
  assert abs(value(params, 1)) < 1e-6
  assert value(params, 0) == value(other, 0)
