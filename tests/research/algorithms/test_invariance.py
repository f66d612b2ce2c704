"""A step of every algorithm, on a tiny model with a critic beside it.

All losses are branches of one program, so that it is compiled once a layout:
a rollout's `version_BT` says which is meant.
"""

import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.algorithms
from research import scoring, sharding
from research.algorithms import ppo
from research.models import transformer
from research.models.config import Model
from research.training import objectives
from research.training import step as steps
from tests.research.algorithms.rollouts import ALONE, packed

NAMES = [m.name for m in pkgutil.iter_modules(research.algorithms.__path__)]
MODULES = [importlib.import_module(f"research.algorithms.{n}") for n in NAMES]
MODEL = Model(
  vocab=16,
  width=8,
  layers=1,
  kv_heads=1,
  groups=1,
  head_dim=8,
  mlp=16,
  context=32,
)


def any_loss(policy, rollout, advantage_BT):
  """(sum, denominator, metrics that all have) of the one that is meant."""

  def of(module):
    total, count, told = module.loss(policy, rollout, advantage_BT)
    names = ("entropy", "ratio_min", "ratio_max", "mismatch_kl")
    return total, count, {name: told[name] for name in names}

  branches = [functools.partial(of, module) for module in MODULES]
  return jax.lax.switch(rollout.version_BT[0, 0], branches)


@functools.cache
def summed(microbatches, devices):
  mesh = sharding.make_mesh(data=2, fsdp=2) if devices > 1 else None
  policy = objectives.policy_gradient(
    MODEL, any_loss, temperature=0.8, mesh=mesh, block=16
  )
  critic = objectives.critic(MODEL, ppo.value_loss, mesh)

  def objective(params, frozen, inputs):
    total, count, told = policy(params["policy"], frozen, inputs)
    value, _, seen = critic(params["critic"], frozen, inputs)
    return total + value, count, told | seen

  f = functools.partial(steps.accumulate, objective, microbatches=microbatches)
  return jax.jit(f), mesh


@functools.cache
def parameters():
  critic = scoring.init(MODEL, transformer.init(MODEL, jax.random.key(1)))
  critic["head_D"] = jnp.linspace(-1, 1, MODEL.width)
  policy = transformer.init(MODEL, jax.random.key(0))
  return {"policy": policy, "critic": critic}


def learned(name, rows, microbatches=1, devices=1, **layout):
  """(mean gradients of policy and critic, mean loss, metrics' means)."""
  f, mesh = summed(microbatches, devices)
  which = NAMES.index(name)
  rollout, _ = packed(rows, **layout)
  rollout = rollout.replace(version_BT=rollout.version_BT + which)
  narrow = lambda x: x.astype(np.float32) if x.dtype == float else x
  rollout = jax.tree.map(narrow, rollout)
  advantage_BT = np.asarray(jax.jit(MODULES[which].advantage)(rollout))
  grads, value, count, told = f(
    parameters(), None, sharding.place((rollout, advantage_BT), mesh)
  )
  means = {name: a / b for name, (a, b) in told.items()}
  return jax.tree.map(lambda g: g / count, grads), value / count, means


@functools.cache
def plainly(name):
  return learned(name, ALONE, T=7)


def assert_same(one, two, tolerance=2e-5):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * (np.abs(a).max() + 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_the_same_packed_padded_in_parts_on_four_devices(name):
  one = plainly(name)
  rows = [ALONE[i] + ALONE[i + 1] for i in range(0, 8, 2)] + [[]] * 4
  two = learned(name, rows, 2, 4, T=13, left=1)
  assert_same(one, two)
  assert max(np.abs(g).max() for g in jax.tree.leaves(one[0])) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_microbatches_change_nothing(name):
  assert_same(plainly(name), learned(name, ALONE, 4, T=7))


def test_control_another_policy_gradient_is_noticed():
  with pytest.raises(AssertionError):
    assert_same(plainly("grpo"), plainly("rloo"))
