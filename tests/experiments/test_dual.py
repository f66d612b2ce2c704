"""Which side a step is of, what it minimises, and that a run is resumed."""

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
from tests.experiments.test_resume import assert_same

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
      "reading": {"name": "research.losses.supervised"},
      "teacher": "teacher",
      "loss": {"name": "research.losses.forward_kl"},
      "rows": 2,
      "length": 40,
      "shards": 2,
      "optimizer": {"learning_rate": 1e-3},
      "loop": {"steps": 12, "save_every": 4},
    }
    return build(dual.Config, raw | fields)

  return make


def drawn(sides, steps):
  """Which side each step is of by its metric and its rows, and what is read."""
  found = [sides.draw(None, step) for step in steps]
  for (_, domain_B), seen in found:
    assert set(np.asarray(domain_B).tolist()) == {seen["general"][0]}
  return [
    (seen["general"][0], np.asarray(batch.tokens_BT).tolist())
    for (batch, _), seen in found
  ]


def test_both_sides_go_on_where_they_stood(config):
  """Also a control: those that are not put back read something else."""
  make = lambda: dual.Sides(config(m=0.5), {}, None)
  whole = drawn(make(), range(12))
  first, later, fresh = make(), make(), make()
  drawn(first, range(5))
  later.restore(json.loads(json.dumps(first.state())))
  assert drawn(later, range(5, 12)) == whole[5:]
  assert drawn(fresh, range(5, 12)) != whole[5:]


def test_a_side_reads_its_own_text_in_its_own_share(config):
  told = drawn(dual.Sides(config(), {}, None), range(400))
  for side, tokens in told:
    read = set(np.ravel(tokens).tolist()) & set(b"ab")
    assert bytes(read).decode() == "ab"[int(side)]
  share = 1 - np.mean([side for side, _ in told])
  assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


REFUSED = {
  "m is 0.0": {"m": 0.0},
  "m is 1.0": {"m": 1.0},
  "no corpora": {"general": []},
  "domain or general": {"domain": []},
  "reads no plain text": {"reading": {"name": "research.losses.jsd"}},
  "hears Sparse": {"loss": {"name": "research.losses.top_candidates"}},
}


@pytest.mark.parametrize(("words", "fields"), REFUSED.items(), ids=REFUSED)
def test_what_has_no_second_side_is_refused(config, words, fields):
  with pytest.raises(ValueError, match=words):
    config(**fields)


@pytest.fixture(scope="module")
def params():
  return transformer.init(MODEL, jax.random.key(0))


def teach(monkeypatch, teacher):
  """Puts a teacher in the place of a stage's."""
  told = lambda *_: (MODEL, teacher, MODEL.vocab)
  monkeypatch.setattr(student, "teacher", told)


def test_the_domain_is_read_and_the_teacher_heard_of_general_text(
  config, params, monkeypatch
):
  """Two teachers differ on general text alone; the student's own says 0."""
  other = jax.tree.map(lambda x: 1.5 * x, params)
  sides, inputs = dual.Sides(config(m=0.5), {}, None), {}
  for step in range(12):
    (batch, domain_B), _ = sides.draw(None, step)
    inputs[int(domain_B[0])] = batch, domain_B

  teach(monkeypatch, other)
  objective, frozen = dual._objective(config(), {}, None)
  assert frozen[0] is None and frozen[1] is other
  both = jax.jit(objective)

  def value(teacher, side):
    total, denominator, _ = both(params, [None, teacher], inputs[side])
    return float(total / denominator)

  plain = objectives.imitation(MODEL, supervised.loss)
  heard = objectives.matching(MODEL, MODEL, forward_kl.loss)
  alone = lambda f, frozen, side: np.divide(
    *jax.jit(f)(params, frozen, inputs[side][0])[:2]
  )
  np.testing.assert_allclose(value(other, 0), alone(plain, None, 0), rtol=1e-6)
  np.testing.assert_allclose(value(other, 1), alone(heard, other, 1), rtol=1e-6)
  assert value(other, 1) > 0.01
  assert abs(value(params, 1)) < 1e-6
  assert value(params, 0) == value(other, 0)


@pytest.mark.slow
def test_a_broken_run_ends_as_a_whole_one(
  config, params, cached, tmp_path, monkeypatch
):
  """Broken off behind a checkpoint and two steps that it does not have."""
  teach(monkeypatch, params)
  whole, broken = tmp_path / "whole" / "dual", tmp_path / "broken" / "dual"
  cfg = config(m=0.5)
  for folder in (whole, broken):
    folder.mkdir(parents=True)
  dual.run(cfg, {}, whole)
  draw = dual.Sides.draw

  def dies(self, state, step):
    if step == 6:
      raise KeyboardInterrupt
    return draw(self, state, step)

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(dual.Sides, "draw", dies)
    dual.run(cfg, {}, broken)
  assert not (broken / "checkpoints" / "00000008").exists()
  dual.run(cfg, {}, broken)
  assert_same(broken.parent, whole.parent, "dual")
