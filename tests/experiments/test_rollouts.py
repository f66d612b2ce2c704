"""What a step learns from: refills, minibatches, references, episodes."""

import dataclasses
import itertools
import json
import types

import jax
import numpy as np
import pytest

from experiments import pools, rollouts, student
from experiments.stages import reinforce
from research.models import transformer
from research.sampling import engine, rollout
from research.types import Problem, TrainState, Trajectory, Verdict
from tests.experiments import tiny
from tests.experiments.reinforcing import built, killed, start, trained

CALC = "research.environments.calculator"


@pytest.fixture
def state():
  model = built().run.model
  params = transformer.init(model, jax.random.key(0))
  return TrainState(0, params, None, jax.random.key(1))


def sampler(tmp_path, grader=None, **changes):
  """Rollouts of a stage, graded by a function of the sample's number."""
  cfg = built(**changes)
  mesh = student.make_mesh(cfg)
  made = rollouts.Rollouts(
    cfg, {}, cfg.problems, cfg.pool, tmp_path, mesh, cfg.minibatches
  )
  if grader is not None:
    count = itertools.count()
    reward = lambda problem, text: grader(next(count))
    made._task = types.SimpleNamespace(reward=reward)
  return made, cfg


def points(value):
  return Verdict("wrong", float(value))


def groups_of(trajectory):
  live = np.asarray(trajectory.segments_BT) > 0
  return sorted(set(np.asarray(trajectory.group_BT)[live].tolist()))


def test_only_groups_that_differ_are_kept(tmp_path, state):
  """Four groups of four: in the second draw the third and fourth differ."""
  many = {"refills": 1, "problems": 4}
  cfg = built(rollout=many).rollout
  size = cfg.problems * cfg.group
  wanted = {0: 1.0, size + 2 * cfg.group: 1.0, size + 3 * cfg.group + 1: 1.0}
  grader = lambda i: points(wanted.get(i, 0.0))
  made, _ = sampler(tmp_path, grader, rollout=many)
  trajectory, seen = made.sample(state, 0)
  assert groups_of(trajectory) == [0, 1, 2]  # numbered anew
  assert seen["kept"] == (3.0 * cfg.group, 2.0 * size)
  lines = [
    json.loads(line)
    for path in (tmp_path / "rollouts").iterdir()
    for line in path.read_text().splitlines()
  ]
  assert len(lines) == 2 * size  # all are logged, kept or not


def test_enough_groups_need_no_refill(tmp_path, state):
  made, cfg = sampler(tmp_path, lambda i: points(i), rollout={"refills": 3})
  trajectory, seen = made.sample(state, 0)
  assert groups_of(trajectory) == list(range(cfg.rollout.problems))
  assert seen["kept"][0] == seen["kept"][1]


def test_alike_after_all_refills_is_an_error(tmp_path, state):
  made, _ = sampler(tmp_path, lambda i: points(1), rollout={"refills": 2})
  with pytest.raises(ValueError, match="earn the same"):
    made.sample(state, 0)


def test_what_was_not_graded_goes_with_its_group(tmp_path, state):
  """It is kept and masked, and neither makes nor breaks a group."""
  group = built().rollout.group
  told = {0: Verdict("error", None), 1: points(1)}
  grader = lambda i: told.get(i, points(0))
  made, _ = sampler(tmp_path, grader, rollout={"refills": 0})
  trajectory, seen = made.sample(state, 0)
  assert seen["kept"][0] == group
  ids = np.asarray(trajectory.group_BT)
  masked = (ids == -1) & (np.asarray(trajectory.segments_BT) > 0)
  assert masked.any() and not np.asarray(trajectory.mask_BT)[masked].any()


def test_groups_outside_of_a_band_are_masked_or_replaced(tmp_path, state):
  """Of four groups of four one has a mean of 1/4, one of 3/4; two are alike."""
  right = {0, 4, 5, 6}
  grader = lambda i: points(i in right)
  some = {"between": (0.5, 0.8), "problems": 4}
  made, _ = sampler(tmp_path, grader, rollout=some)
  trajectory, seen = made.sample(state, 0)
  ids, live = map(np.asarray, (trajectory.group_BT, trajectory.segments_BT))
  assert set(ids[live > 0].tolist()) == {-1, 0}
  assert not np.asarray(trajectory.mask_BT)[ids == -1].any()
  assert seen["kept"] == (4.0, 16.0)
  many = some | {"refills": 1}
  made, _ = sampler(tmp_path / "more", grader, rollout=many)
  trajectory, seen = made.sample(state, 0)
  assert groups_of(trajectory) == [0]  # and none in the second draw
  assert seen["kept"] == (4.0, 32.0)


def test_without_refills_all_is_kept(tmp_path, state):
  made, cfg = sampler(tmp_path, lambda i: points(1))
  trajectory, seen = made.sample(state, 0)
  assert groups_of(trajectory) == list(range(cfg.rollout.problems))
  assert "kept" not in seen


def test_minibatches_are_each_row_once_an_epoch():
  rows = np.arange(12).reshape(12, 1)
  every = np.ones(12, bool)
  parts = reinforce.minibatches({"x": rows}, every, 3, 4, (0, 5))
  assert len(parts) == 12 and {len(p["x"]) for p in parts} == {3}
  epochs = [
    np.concatenate([p["x"] for p in parts[i : i + 4]]).ravel().tolist()
    for i in (0, 4, 8)
  ]
  assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2]
  again = reinforce.minibatches({"x": rows}, every, 3, 4, (0, 5))
  assert all(
    np.array_equal(a["x"], b["x"]) for a, b in zip(parts, again, strict=True)
  )


def test_rows_that_fill_up_make_no_update():
  """Of 16 rows five are live: dealt to four parts, and to eight but three."""
  rows, live = np.arange(16), np.arange(16) % 3 == 1
  for parts, updates in ((4, 4), (8, 5)):
    dealt = reinforce.minibatches(rows, live, 1, parts, (0, 0))
    assert len(dealt) == updates and {len(p) for p in dealt} == {16 // parts}
    assert max(live[p].sum() for p in dealt) - 1 <= 5 // parts
    assert min(live[p].sum() for p in dealt) >= 1


@pytest.mark.parametrize("how", ["graded", "zero", "masked"])
def test_what_was_cut_off(how, tmp_path, state, monkeypatch):
  """Every other answer; masked, it is of its group but nothing is learned."""
  monkeypatch.setattr(engine, "complete", cutting(engine.complete))
  made, cfg = sampler(
    tmp_path, lambda i: points(i % 3), rollout={"truncated": how}
  )
  trajectory, seen = made.sample(state, 0)
  path = next((tmp_path / "rollouts").iterdir())
  records = [json.loads(row) for row in path.read_text().splitlines()]
  rewards = [
    0.0 if how == "zero" and i % 2 else float(i % 3)
    for i in range(len(records))
  ]
  assert [r["reward"] for r in records] == rewards
  assert seen["ungraded"][0] == 0 and seen["reward"][0] == sum(rewards)
  assert groups_of(trajectory) == list(range(cfg.rollout.problems))
  late = np.asarray(trajectory.truncated_BT) > 0
  assert late.any() and (np.asarray(trajectory.group_BT)[late] >= 0).all()
  heard = np.asarray(trajectory.mask_BT)[late].any()
  assert heard == (how != "masked")


def cutting(complete):
  """An engine whose every other answer is said to be cut off."""

  def cut(*args, **how):
    said = complete(*args, **how)
    return [
      dataclasses.replace(one, truncated=bool(i % 2))
      for i, one in enumerate(said)
    ]

  return cut


def test_that_no_answer_can_be_graded_is_said(tmp_path, state):
  failed = lambda i: Verdict("error", None)
  made, _ = sampler(tmp_path, failed, rollout={"refills": 1})
  with pytest.raises(ValueError, match="could be graded"):
    made.sample(state, 0)


def test_bonuses_raise_what_was_graded(tmp_path, state):
  """0.25 for the form, which nothing of an untrained policy has, and half of
  the share of another script; what was not graded earns none."""
  bonuses = (
    {"name": "research.rewards.form", "weight": 0.25},
    {
      "name": "research.rewards.language",
      "weight": 0.5,
      "args": {"scripts": ("LATIN",)},
    },
  )
  grader = lambda i: Verdict("error", None) if i == 0 else points(i)
  made, cfg = sampler(tmp_path, grader, rollout={"bonuses": bonuses})
  _, seen = made.sample(state, 0)
  path = next((tmp_path / "rollouts").iterdir())
  records = [json.loads(row) for row in path.read_text().splitlines()]
  assert records[0]["reward"] is None and "bonuses" not in records[0]
  for i, record in enumerate(records[1:], 1):
    earned = record["bonuses"]
    assert earned["form"] == 0
    assert record["reward"] == i + 0.5 * earned["language"]
  n = float(cfg.rollout.problems * cfg.rollout.group)
  assert seen["bonus_form"] == (0.0, n - 1)
  assert 0 < seen["bonus_language"][0] <= n - 1
  with pytest.raises(ValueError, match="no bonuses"):
    built(rollout={"bonuses": bonuses, "turns": 2})


def test_a_reward_that_is_no_number_ends_no_run(tmp_path, state):
  grader = lambda i: Verdict("wrong", float("nan") if i == 0 else float(i))
  made, cfg = sampler(tmp_path, grader)
  trajectory, seen = made.sample(state, 0)
  n = cfg.rollout.problems * cfg.rollout.group
  assert seen["ungraded"] == (1.0, float(n))
  assert np.isfinite(np.asarray(trajectory.rewards_BT)).all()


@pytest.mark.parametrize("field", ["epochs", "minibatches", "block"])
def test_a_step_without_updates(field):
  with pytest.raises(ValueError, match="no update"):
    built(**{field: 0})


@pytest.mark.parametrize(
  "wrong", [{"refills": -1}, {"turns": 0}, {"temperature": 0.0}]
)
def test_rollouts_that_cannot_be(wrong):
  with pytest.raises(ValueError, match=r"at least|must be > 0"):
    built(rollout=wrong)


def test_an_episode_takes_no_begun_answers(tmp_path):
  begun = [Problem("3", "3", {"key": "3"}, begun="2+")]
  pools.write(tmp_path / "begun.jsonl", begun)
  problems = {"task": CALC, "split": "train", "args": {}}
  problems |= {"path": str(tmp_path / "begun.jsonl")}
  with pytest.raises(ValueError, match="have begun answers"):
    sampler(tmp_path, problems=problems, rollout={"turns": 2})


def test_an_environment_is_played(tmp_path, state):
  problems = {"task": CALC, "split": "train", "args": {}}
  limits = {"turns": 2, "length": 96, "new_tokens": 12}
  made, cfg = sampler(tmp_path, problems=problems, rollout=limits)
  trajectory, seen = made.sample(state, 0)
  assert isinstance(trajectory, Trajectory)
  assert groups_of(trajectory) == list(range(cfg.rollout.problems))
  assert seen["reward"][1] == cfg.rollout.problems * cfg.rollout.group
  path = next((tmp_path / "rollouts").iterdir())
  record = json.loads(path.read_text().splitlines()[0])
  assert record["facts"].keys() == {"calls", "failed"}
  assert record["messages"][0] == {"role": "user", "content": record["prompt"]}


def test_a_sample_is_spoken_as_it_is_packed():
  said = engine.Completion(np.array([7, 8]), np.array([-1.0, -2]), True)
  tokens, mask, logprobs = rollout.behind(np.array([5]), said)
  assert tokens.tolist() == [5, 7, 8] and mask.tolist() == [0, 1, 1]
  assert logprobs.tolist() == [0, -1, -2]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  return start(tmp_path_factory.mktemp("run"))


def test_a_step_whose_groups_are_all_outside_teaches_nothing(started, tmp_path):
  """The run goes on, by the optimizer's weight decay alone, which is none."""
  still = {"optimizer": tiny.optimizer(1e-3) | {"weight_decay": 0.0}}
  outside = {"rollout": {"between": (0.99, 1.0)}}
  lines, params = trained(tmp_path, started, **still, **outside)
  assert len(lines) == 4 and not any(line["kept"] for line in lines)
  cfg = built()
  begun = student.load(cfg, started, "answer_only", student.make_mesh(cfg))
  same = jax.tree.map(np.array_equal, params, jax.device_get(begun))
  assert all(jax.tree.leaves(same))


@pytest.mark.slow  # test_beside kills a run of several updates, too
def test_several_updates_a_step_resume_to_the_bit(tmp_path, started):
  told, params = trained(tmp_path / "whole", started)
  assert [line["step"] for line in told] == [0, 1, 2, 3]
  # The first of four updates is on-policy; those behind it move the ratio.
  assert told[0]["ratio_min"] < 1 < told[0]["ratio_max"]
  assert told[0]["kl"] >= 0
  killed(tmp_path / "cut", started, at=3)
  again, same = trained(tmp_path / "cut", started)
  assert again == told
  jax.tree.map(np.testing.assert_array_equal, params, same)


def test_trainer_and_sampler_share_a_temperature(tmp_path, started):
  """A policy that was not updated since has ratios of 1, at 0.5 as well."""
  plain = {"epochs": 1, "minibatches": 1, "before": "sampler"}
  plain |= {"algorithm": {"name": "research.algorithms.grpo", "args": {}}}
  plain |= {"reference": None, "advantage": {}}
  still = {"optimizer": {"learning_rate": 1e-30, "schedule": "constant"}}
  said, _ = trained(
    tmp_path, started, rollout={"temperature": 0.5}, **plain | still
  )
  for line in said:
    assert abs(line["ratio_min"] - 1) < 1e-4 > abs(line["ratio_max"] - 1)
    assert line["mismatch_kl"] < 1e-6


def test_a_penalty_holds_the_policy(tmp_path, started):
  """Far from nothing, beta moves the update; kl is that of whole answers."""
  free, params = trained(tmp_path / "free", started)
  args = {"beta": 10.0, "kl": "full"}
  heavy = {"name": "research.algorithms.grpo", "args": args}
  held, others = trained(tmp_path / "held", started, algorithm=heavy)
  assert free[-1]["kl"] != held[-1]["kl"]
  leaves = zip(*map(jax.tree.leaves, (params, others)), strict=True)
  assert any(not np.array_equal(*pair) for pair in leaves)


def test_the_whole_divergence_wants_a_reference():
  args = {"name": "research.algorithms.grpo", "args": {"kl": "full"}}
  with pytest.raises(ValueError, match="name its stage"):
    built(algorithm=args, reference=None)
