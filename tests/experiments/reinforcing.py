"""The tiny run's reinforced stage, from an untrained student, run by itself."""

import itertools
import json

import jax
import pytest

from experiments import rollouts, run, student
from tests.experiments import tiny


def config(**changes):
  """A run that ends with it; `changes` are the stage's fields."""
  c = tiny.get_config().to_dict()
  for name in ("distilled", "polished", "climbed", "evaluate"):
    del c[name]
  c["stages"] = ("annotate", "answer_only", "reinforced")
  c["answer_only"]["loop"] |= {"steps": 2}
  about = c["reinforced"] | {"start": "answer_only"}
  about["rollout"] = about["rollout"] | changes.pop("rollout", {})
  c["reinforced"] = about | changes
  return c


def built(**changes):
  return run.plan(config(**changes))["reinforced"][1]


def start(folder):
  """A student of two steps, as a later stage is told of it."""
  folder = folder / "answer_only"
  corpus = folder.parent / "answers.jsonl"
  record = {"prompt": "3a+4", "completion": "#### 7"}
  corpus.write_text(json.dumps(record) + "\n")
  c = config()
  c["answer_only"]["corpora"] = [{"path": str(corpus)}]
  module, cfg = run.plan(c)["answer_only"]
  folder.mkdir()
  module.run(cfg, {}, folder)
  return {"answer_only": {"folder": str(folder)}}


WHOLE = {
  "reference": "answer_only",
  "epochs": 2,
  "minibatches": 2,
  "before": "trainer",
  "advantage": {"normalize": False, "beta": 0.01},
  "algorithm": {
    "name": "research.algorithms.grpo",
    "args": {"beta": 0.1, "kl": "k3_weighted", "cap": 2.0},
  },
  "loop": {"steps": 4, "save_every": 2, "keep": 2, "best": None},
}


def trained(folder, started, **changes):
  """Reinforces; returns what each step said, and the last parameters."""
  module, cfg = run.plan(config(**(WHOLE | changes)))["reinforced"]
  folder = folder / "reinforced"  # a stage's name is in its keys
  folder.mkdir(parents=True, exist_ok=True)
  module.run(cfg, started, folder)
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  done = {"reinforced": {"folder": str(folder)}}
  params = student.load(cfg, done, "reinforced", student.make_mesh(cfg))
  return [json.loads(line) for line in lines], jax.device_get(params)


def killed(folder, started, at, **changes):
  """Reinforces until step `at` is to be sampled, and is killed there."""
  sample, count = rollouts.Rollouts.sample, itertools.count()

  def cut(self, state, step):
    if next(count) == at:
      raise KeyboardInterrupt
    return sample(self, state, step)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rollouts.Rollouts, "sample", cut)
    with pytest.raises(KeyboardInterrupt):
      trained(folder, started, **changes)
