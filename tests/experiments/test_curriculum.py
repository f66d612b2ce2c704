"""When a level opens, what is read on it, and that a ladder is resumed."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import settings
from experiments.settings import build
from experiments.stages import curriculum
from research.models import presets
from research.sampling.engine import Completion
from research.types import Verdict

STATE = SimpleNamespace(key=None, params={}, frozen=None)


@pytest.fixture
def config(tmp_path):
  """config(**probe): three levels, whose texts say which one they are of."""

  def make(levels="abc", **probe):
    for name in levels:
      line = json.dumps({"prompt": name, "completion": name})
      (tmp_path / f"{name}.jsonl").write_text(line + "\n")
    problems = {"task": "research.tasks.chain", "split": "train"}
    raw = {
      "run": settings.Run(
        0, "bytes", presets.make("tiny", width=32, layers=1), settings.Mesh()
      ),
      "levels": [
        {"corpora": [{"path": str(tmp_path / f"{n}.jsonl")}]}
        | {"problems": problems}
        for n in levels
      ],
      "probe": {"every": 2, "count": 4, "new_tokens": 4, "passed": 0.5}
      | {"patience": 6}
      | probe,
      "review": 0.4,
      "loss": {"name": "research.losses.supervised"},
      "rows": 8,
      "length": 40,
      "shards": 1,
      "optimizer": {"learning_rate": 1e-3},
      "loop": {"steps": 8, "save_every": 8},
    }
    return build(curriculum.Config, raw)

  return make


def ladder(config, monkeypatch, rates):
  """A ladder whose student's pass rates are written down beforehand."""
  found = curriculum.Ladder(config, {}, None)
  left = iter(rates)
  monkeypatch.setattr(found, "_rate", lambda state, step: next(left))
  return found


def levels(ladder, steps):
  return [int(ladder.draw(STATE, i)[1]["level"][0]) for i in range(*steps)]


def test_a_level_opens_when_the_one_before_is_passed(config, monkeypatch):
  found = ladder(config(), monkeypatch, [0.1, 0.5, 0.4, 0.9, 0.9])
  assert levels(found, (0, 12)) == [0] * 4 + [1] * 4 + [2] * 4


def test_patience_has_an_end(config, monkeypatch):
  found = ladder(config(patience=4), monkeypatch, [0.0] * 9)
  assert levels(found, (0, 10)) == [0] * 4 + [1] * 4 + [2] * 2


def test_by_time_alone(config, monkeypatch):
  found = ladder(config(passed=1.1, patience=2), monkeypatch, [1.0] * 9)
  assert levels(found, (0, 6)) == [0, 0, 1, 1, 2, 2]


def test_the_last_level_stays_open(config, monkeypatch):
  found = ladder(config(levels="a"), monkeypatch, [1.0] * 9)
  assert levels(found, (0, 9)) == [0] * 9


@pytest.mark.parametrize(
  ("level", "shares"),
  [
    (0, {"a": 1}),
    (1, {"a": 0.4, "b": 0.6}),
    (2, {"a": 0.2, "b": 0.2, "c": 0.6}),
  ],
)
def test_what_is_read_on_a_level(config, level, shares):
  found = curriculum.mixture(config(), level)
  told = {c.path[-7]: pytest.approx(c.weight) for c in found}
  assert told == shares


def test_the_newest_level_is_really_read(config, monkeypatch):
  """Also a control: nothing of a level that is not open yet."""
  found = ladder(config(), monkeypatch, [1.0] * 9)
  for step, names in ((0, "a"), (1, "a"), (2, "ab"), (3, "ab"), (4, "abc")):
    batch, _ = found.draw(STATE, step)
    read = set(np.asarray(batch.tokens_BT).ravel().tolist()) & set(b"abc")
    assert bytes(sorted(read)).decode() == names


def test_a_ladder_goes_on_where_it_stood(config, monkeypatch):
  rates = [0.0, 1.0, 0.0, 1.0, 0.0]
  whole = ladder(config(), monkeypatch, rates)
  drawn = [whole.draw(STATE, i) for i in range(10)]
  first = ladder(config(), monkeypatch, rates)
  for i in range(5):
    first.draw(STATE, i)
  later = ladder(config(), monkeypatch, rates[2:])
  later.restore(json.loads(json.dumps(first.state())))
  for i in range(5, 10):
    (batch, seen), (same, told) = drawn[i], later.draw(STATE, i)
    np.testing.assert_array_equal(batch.tokens_BT, same.tokens_BT)
    assert seen == told


def test_the_pass_rate_is_of_what_could_be_graded(config, monkeypatch):
  """Of four answers two are right, one is wrong, and one was never graded."""
  said = iter([("correct", 1.0), ("wrong", 0.0), ("error", None)] * 2)
  task = SimpleNamespace(reward=lambda problem, text: Verdict(*next(said)))
  monkeypatch.setattr(curriculum, "resolve", lambda name: task)
  found = curriculum.Ladder(config(), {}, None)
  asked = []

  def write(decoder, params, tokenizer, problems, *rest):
    asked.extend(problems)
    return [Completion((1,), (0.0,), False)] * len(problems)

  monkeypatch.setattr(curriculum.rollout, "write", write)
  monkeypatch.setattr(curriculum.student, "params", lambda *rest: {})
  state = SimpleNamespace(key=jax.random.key(0), params={}, frozen=None)
  assert found._rate(state, 2) == 2 / 3
  assert len(asked) == 4


@pytest.mark.parametrize("change", [{"every": 0}, {"patience": 0}])
def test_no_probe_at_all(config, change):
  with pytest.raises(ValueError, match="at least 1"):
    config(**change)
