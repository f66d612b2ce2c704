"""Which domain a step is of, what it reads, and that a mixture is resumed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import settings
from experiments.rollouts import Rollouts
from experiments.settings import build
from experiments.stages import on_policy
from research.models import presets

TEXTS = 40
STATE = SimpleNamespace(key=None, params={}, frozen=None)


@pytest.fixture
def config(tmp_path):
  """config(**share): two domains, whose texts say which one they are of."""

  def make(**share):
    for name in "ab":
      texts = [
        json.dumps({"prompt": name, "completion": name * (1 + i % 7)})
        for i in range(TEXTS)
      ]
      (tmp_path / f"{name}.jsonl").write_text("\n".join(texts))
    problems = {"task": "research.tasks.chain", "split": "train"}
    size = {"problems": 2, "group": 2, "new_tokens": 4, "length": 40, "rows": 4}
    raw = {
      "run": settings.Run(
        0, "bytes", presets.make("tiny", width=32, layers=1), settings.Mesh()
      ),
      "start": None,
      "domains": [
        {"teacher": f"teacher_{name}", "problems": problems, "pool": 4}
        | {"corpora": [{"path": str(tmp_path / f"{name}.jsonl")}]}
        for name in "ab"
      ],
      "rollout": size,
      "share": {"first": 0.0, "last": 0.0, "rows": 2, "shards": 2} | share,
      "loss": {"name": "research.losses.reverse_kl"},
      "optimizer": {"learning_rate": 1e-3},
      "loop": {"steps": 12, "save_every": 12},
    }
    return build(on_policy.Config, raw)

  return make


def drawn(mixture, steps):
  """Which domain each step is of, and what is read in it."""
  found = [mixture.draw(STATE, step) for step in steps]
  return [
    (seen["domain"][0], np.asarray(batch.tokens_BT).tolist())
    for (batch, _), seen in found
  ]


def test_a_mixture_goes_on_where_it_stood(config, tmp_path):
  """Also a control: one that is not put back reads something else."""
  make = lambda: on_policy.Mixture(config(), {}, tmp_path, None)
  whole = drawn(make(), range(12))
  first, later, fresh = make(), make(), make()
  drawn(first, range(5))
  later.restore(json.loads(json.dumps(first.state())))
  assert drawn(later, range(5, 12)) == whole[5:]
  assert drawn(fresh, range(5, 12)) != whole[5:]


def test_a_step_reads_its_own_domain(config, tmp_path):
  mixture = on_policy.Mixture(config(), {}, tmp_path, None)
  told = drawn(mixture, range(12))
  assert {domain for domain, _ in told} == {0.0, 1.0}
  for domain, tokens in told:
    read = set(np.ravel(tokens).tolist()) & set(b"ab")
    assert bytes(read).decode() == "ab"[int(domain)]


def test_what_is_sampled_says_whose_it_is(config, tmp_path, monkeypatch):
  mixture = on_policy.Mixture(config(first=1.0, last=0.5), {}, tmp_path, None)
  told = [{"reward": 0.0, "verdict": "wrong", "tokens": 1, "truncated": False}]
  spoken = [(np.array([1, 2]), np.array([0, 1]), np.array([0.0, -1.0]))]
  answer = lambda self, state, asked, number: (told * 4, spoken * 4)
  monkeypatch.setattr(Rollouts, "_answer", answer)
  monkeypatch.setattr(Rollouts, "_packed", lambda self, kept: kept)
  for sampler, name in zip(mixture._rollouts, "ab", strict=True):
    sampler.sample(SimpleNamespace(step=0), 0)
    rows = (tmp_path / "rollouts" / "000000.jsonl").read_text().splitlines()
    assert {json.loads(row)["teacher"] for row in rows} == {f"teacher_{name}"}
