"""TRL's losses and their gradients on fixed rollouts, to 1e-6.

tests/oracle/trl_worker.py says how these numbers were made.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.algorithms import cispo, dapo, dr_grpo, grpo, gspo
from research.types import Policy, Trajectory
from tests.conftest import GOLDEN
from tests.oracle import drawn

# TRL's name: ours, and its arguments
CASES = {
  "grpo": (grpo, {"aggregate": "sequence"}),
  "grpo_k3": (grpo, {"aggregate": "sequence", "beta": 0.04}),
  "grpo_k3_weighted": (
    grpo,
    {"aggregate": "sequence", "beta": 0.04, "kl": "k3_weighted"},
  ),
  "bnpo": (grpo, {"aggregate": "token"}),
  "dr_grpo": (dr_grpo, {"length": 16}),
  "dapo": (dapo, {}),
  "dapo_capped": (dapo, {"cap": 1.1}),
  "cispo": (cispo, {"clip_high": 0.28}),
  "gspo": (gspo, {"clip_low": 0.03, "clip_high": 0.04}),
}


def fixed():
  """The rollout that TRL saw: one answer a row, behind no prompt."""
  laws, mask, advantages = drawn.rollout()
  laws = {name: jnp.asarray(x) for name, x in laws.items()}
  B, T = mask.shape
  t = np.broadcast_to(np.arange(T)[None], (B, T))
  ones = jnp.ones((B, T), int)
  rollout = Trajectory(
    tokens_BT=ones,
    positions_BT=jnp.asarray(t),
    segments_BT=ones,
    mask_BT=jnp.asarray(mask),
    logprobs_BT=laws["sampler"],
    rewards_BT=0.0 * ones,
    group_BT=0 * ones,
    truncated_BT=ones,
    version_BT=ones,
    ref_logprobs_BT=laws["ref"],
    old_logprobs_BT=laws["old"],
  )
  return rollout, laws["now"], jnp.asarray(advantages)[:, None] * ones


def test_every_case_is_compared():
  said = json.loads((GOLDEN / "trl_algorithms.json").read_text())
  others = {"dpo_0.1", "dpo_0.5", "reward"}  # tests/research/preferences
  assert set(said) == {*CASES, *others}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_equals_trl(name):
  module, args = CASES[name]
  said = json.loads((GOLDEN / "trl_algorithms.json").read_text())[name]
  with jax.enable_x64(True):
    rollout, now, advantage_BT = fixed()

    @jax.jit
    def mean(now):
      policy = Policy(now, jnp.zeros_like(now))
      total, count, _ = module.loss(policy, rollout, advantage_BT, **args)
      return total / count

    value, slope = jax.value_and_grad(mean)(now)
    np.testing.assert_allclose(value, said["loss"], rtol=1e-6)
    np.testing.assert_allclose(slope, said["gradient"][0], atol=1e-9)
