"""What goes wrong in a rollout stops no run, moves no policy, and is told."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from experiments import rollouts
from research.grading import equality
from research.sampling import engine, rollout
from research.types import Verdict
from tests.experiments.reinforcing import start, trained

PLAIN = {
  "epochs": 1,
  "minibatches": 1,
  "before": "sampler",
  "reference": None,
  "advantage": {},
  "algorithm": {"name": "research.algorithms.grpo", "args": {}},
  # a constant rate, without decay: only a gradient moves a parameter
  "optimizer": {"learning_rate": 1e-2, "schedule": "constant"},
}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  return start(tmp_path_factory.mktemp("run"))


def graded(monkeypatch, reward):
  """Every answer is graded by `reward(problem, text)`."""
  made = rollouts.resolve

  def resolve(address):
    module = made(address)
    if address == "tests.experiments.parity":
      monkeypatch.setattr(module, "reward", reward)
    return module

  monkeypatch.setattr(rollouts, "resolve", resolve)


def moved(one, two):
  pairs = zip(*map(jax.tree.leaves, (one, two)), strict=True)
  return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def first(tmp_path_factory, started):
  """Where the student begins: nothing is learned at a rate of nearly 0."""
  still = {"optimizer": PLAIN["optimizer"] | {"learning_rate": 1e-30}}
  folder = tmp_path_factory.mktemp("still")
  return trained(folder, started, **PLAIN | still)[1]


NOTHING = {
  "no answer can be graded": (
    Verdict("error", None),
    "ungraded",
    "100 % of samples could not be graded",
  ),
  "all groups are equal": (
    Verdict("correct", 1.0),
    "degenerate_groups",
    "100 % of groups have equal rewards",
  ),
  "no reward is a number": (
    Verdict("correct", float("nan")),
    "ungraded",
    "100 % of samples could not be graded",
  ),
}


@pytest.mark.parametrize("verdict, told, words", NOTHING.values(), ids=NOTHING)
def test_nothing_to_learn_from_moves_nothing(
  tmp_path, started, first, monkeypatch, capsys, verdict, told, words
):
  graded(monkeypatch, lambda problem, text: verdict)
  said, params = trained(tmp_path, started, **PLAIN)
  assert [line[told] for line in said] == [1.0] * 4
  shown = capsys.readouterr()
  assert words in " ".join((shown.out + shown.err).split())
  assert moved(params, first) == 0


def test_control_some_answers_move_the_policy(tmp_path, started, first):
  assert moved(trained(tmp_path, started, **PLAIN)[1], first) > 1e-3


def test_answers_of_nothing_are_told(tmp_path, started, first, monkeypatch):
  """A policy that stops at once, and a sampler that gives no token at all."""
  complete, calls = engine.complete, []

  def cut(*args, stop, **how):
    calls.append(0)
    none = np.zeros(0)
    some = engine.Completion(np.array(stop[:1]), np.array([-0.5]), False)
    gone = engine.Completion(none.astype(np.int32), none, True)
    prompts = complete(*args, stop=stop, **how)
    return [gone if i % 2 else some for i in range(len(prompts))]

  monkeypatch.setattr(engine, "complete", cut)
  said, params = trained(tmp_path, started, **PLAIN)
  assert len(calls) == 4 and len(said) == 4
  assert all(line["length"] == 0.5 for line in said)
  assert all(line["truncated"] == 0.5 for line in said)
  for leaf in jax.tree.leaves(params):
    assert np.isfinite(leaf).all()


def by_algebra(signals):
  """A reward that asks the workers of algebra; one is sent a signal at first.

  The answer is equal to the gold, though not plainly.
  """
  left = list(signals)

  def reward(problem, text):
    if left:
      worker = equality._pool()._places.queue[-1]
      os.kill(worker.process.pid, left.pop())
    return equality.grade("x^2+2*x+1", "(x+1)^2", seconds=5)

  return reward


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_grader_that_dies_or_hangs(tmp_path, started, monkeypatch, how):
  """It is replaced; one that hangs costs the answer that it was at, no more."""
  equality.grade("x^2", "x*x")  # the workers are there
  graded(monkeypatch, by_algebra([how]))
  said, _ = trained(tmp_path, started, **PLAIN)
  lost = [1 - line["accuracy"] for line in said]
  assert lost[1:] == [0, 0, 0]
  assert lost[0] == (1 / 8 if how == signal.SIGSTOP else 0)


def test_a_late_answer_is_told_from_a_wrong_one(tmp_path, started, monkeypatch):
  late = iter([Verdict("timeout", 0.0)])
  right = Verdict("correct", 1.0)
  graded(monkeypatch, lambda problem, text: next(late, right))
  trained(tmp_path, started, **PLAIN)
  path = tmp_path / "reinforced" / "rollouts" / "000000.jsonl"
  kinds = [json.loads(line)["verdict"] for line in path.open()]
  assert kinds == ["timeout", *["correct"] * 7]
  assert rollout.value_of(Verdict("timeout", 0.0)) == ("timeout", 0.0)
