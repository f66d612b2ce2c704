"""A critic, an implicit reward, a refreshed reference, and a step of lag."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import ahead, beside, rollouts, student
from research.models import transformer
from research.types import TrainState
from tests.experiments.reinforcing import built, killed, start, trained


def algorithm(name, **args):
  return {"name": f"research.algorithms.{name}", "args": args}


PLAIN = {
  "epochs": 1,
  "minibatches": 1,
  "before": "sampler",
  "algorithm": algorithm("grpo"),
  "advantage": {},
}
OPTIMIZER = {"learning_rate": 1e-2}
PPO = {
  "algorithm": algorithm("ppo"),
  "advantage": {"lam": 0.9},
  "critic": {"optimizer": OPTIMIZER, "args": {"value_clip": 0.5}},
}
PRIME = {
  "algorithm": algorithm("prime"),
  "advantage": {},
  "process": {"optimizer": OPTIMIZER, "args": {"beta": 0.5}},
}
REFRESHED = {
  "reference": None,
  "refresh": 2,
  "algorithm": algorithm("grpo", beta=0.1),
  "advantage": {},
}
LAGGED = {"lag": 1}
SLOW = ("ppo", "prime", "refresh")
ALL = {"ppo": PPO, "prime": PRIME, "refresh": REFRESHED, "lag": LAGGED}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  return start(tmp_path_factory.mktemp("run"))


# What else they hold is held as the lag's second policy is.
@pytest.mark.parametrize(
  "changes",
  [
    pytest.param(x, id=n, marks=pytest.mark.slow if n in SLOW else ())
    for n, x in ALL.items()
  ],
)
def test_a_run_that_was_killed_goes_on_to_the_bit(tmp_path, started, changes):
  told, params = trained(tmp_path / "whole", started, **changes)
  killed(tmp_path / "cut", started, at=3, **changes)
  again, same = trained(tmp_path / "cut", started, **changes)
  assert again == told
  jax.tree.map(np.testing.assert_array_equal, params, same)


def test_a_critic_learns_what_the_policy_earns(tmp_path, started):
  told, _ = trained(tmp_path, started, **PLAIN | PPO | {"loop": loop(12)})
  first, last = (told[i]["critic_loss"] for i in (0, -1))
  assert last < 0.5 * first
  assert told[0]["critic_gradient_norm"] > 0


def test_an_implicit_reward_learns_what_is_right(tmp_path):
  """On one rollout of which half is right; it begins as a coin."""
  cfg = built(**PLAIN | PRIME | {"reference": None, "refresh": 9})
  mesh = student.make_mesh(cfg)
  params = transformer.init(cfg.run.model, jax.random.key(0))
  sampler = TrainState(0, params, None, jax.random.key(1))
  sampled = rollouts.Rollouts(cfg, {}, cfg.problems, cfg.pool, tmp_path, mesh)
  trajectory, _ = sampled.sample(sampler, 0)
  right_BT = (trajectory.segments_BT % 2).astype(np.float32)
  trajectory = dataclasses.replace(
    trajectory,
    rewards_BT=right_BT,
    ref_logprobs_BT=beside.scorer(cfg, cfg.run.model, mesh)(params, trajectory),
  )
  learner = beside.companions(cfg, mesh)["process"]
  state, losses = learner.begin(ahead.copied(params)), []
  for _ in range(8):
    state, told = learner.step(state, (trajectory, right_BT))
    losses.append(float(told["loss"][0] / told["loss"][1]))
  np.testing.assert_allclose(losses[0], np.log(2), rtol=1e-5)
  assert losses[-1] < 0.5 * losses[0]
  earned = learner.tell(state.params, trajectory).process_BT
  live = np.asarray(trajectory.mask_BT) > 0
  gain = lambda kind: np.asarray(earned)[live & (np.asarray(right_BT) == kind)]
  assert gain(1).mean() > 0 > gain(0).mean()


def test_a_reference_is_the_policy_of_every_other_step(tmp_path, started):
  changes = PLAIN | REFRESHED | {"optimizer": OPTIMIZER}
  told, _ = trained(tmp_path, started, **changes)
  for even, odd in ((0, 1), (2, 3)):
    np.testing.assert_allclose(told[even]["kl"], 0, atol=1e-9)
    assert told[odd]["kl"] > 1e-6


def loop(steps):
  return {"steps": steps, "save_every": 2, "keep": 2, "best": None}


def written(folder, step):
  path = folder / "reinforced" / "rollouts" / f"{step:06d}.jsonl"
  return [json.loads(row)["completion"] for row in path.open()]


def test_a_lag_samples_by_the_policy_of_the_step_before(tmp_path, started):
  """What step 1 is given, the first policy wrote; step 2's, the second."""
  moving = PLAIN | {"optimizer": {"learning_rate": 0.1}}
  still = PLAIN | {"optimizer": {"learning_rate": 1e-12}}
  late, now, first = (tmp_path / name for name in ("late", "now", "first"))
  told, _ = trained(late, started, lag=1, **moving)
  trained(now, started, **moving)
  trained(first, started, **still)
  assert written(late, 0) == written(now, 0) == written(first, 0)
  assert written(late, 1) == written(first, 1) != written(now, 1)
  assert written(late, 2) != written(first, 2)
  # The ratios to the sampler show the policy's age.
  assert told[0]["ratio_outside"] == 0 < told[1]["ratio_outside"]


def test_a_step_waits_no_longer_than_it_should(tmp_path, started, monkeypatch):
  """What then happens, see test_ahead."""

  def drawing(sample, steps, patience):
    raise InterruptedError(f"{steps} steps, {patience} s")

  monkeypatch.setattr(ahead, "drawing", drawing)
  with pytest.raises(InterruptedError, match=r"4 steps, 7\.0 s"):
    trained(tmp_path, started, lag=1, patience=7.0, **PLAIN)


WRONG = {
  "ppo alone": (PPO | {"critic": None}, "wants a critic"),
  "grpo and a critic": ({"critic": PPO["critic"]}, "no use for a critic"),
  "prime of nothing": (PRIME | {"reference": None}, "name its stage"),
  "prime alone": (PRIME | {"process": None}, "wants process rewards"),
  "grpo and process rewards": ({"process": PRIME["process"]}, "no use for"),
  "rewards above one": (
    PRIME
    | {"reference": "answer_only"}
    | {
      "rollout": {
        "bonuses": ({"name": "research.rewards.form", "weight": 1.0},)
      }
    },
    "bonuses exceed",
  ),
  "two references": ({"reference": "answer_only", "refresh": 2}, "of every"),
  "never refreshed": ({"refresh": 0}, "refresh is 0"),
  "the whole of a moving one": (
    {"refresh": 2, "algorithm": algorithm("grpo", kl="full")},
    "name its stage",
  ),
  "no patience": ({"patience": 0.0}, "above 0"),
  "endless patience": ({"patience": float("inf")}, "at most"),
  "beside adapters": (PPO | {"lora": {"rank": 2, "alpha": 4.0}}, "lora"),
}


@pytest.mark.parametrize("changes, said", WRONG.values(), ids=WRONG)
def test_what_cannot_stand_beside_a_policy(changes, said):
  with pytest.raises(ValueError, match=said):
    built(**changes)
