"""One GRPO step of Pith, as the stage `reinforce` takes it; see peers.py."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import terms

from experiments import loop
from research import sharding
from research.algorithms import grpo
from research.data import packing, text
from research.models import huggingface
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Problem, Trajectory, Verdict

ANSWERS = terms.PROMPTS * terms.GROUP
MESH = sharding.make_mesh()
TASK = types.SimpleNamespace(
  reward=lambda problem, said: Verdict("correct", terms.reward(said))
)


def packed(segments: list[packing.Example]) -> Trajectory:
  """Packs samples into rows, an eighth of the most at a time."""
  length, multiple = terms.PROMPT + terms.NEW, -(-ANSWERS // 8)
  rows = rollout.pack(segments, length=length, multiple=multiple, pad=terms.PAD)
  return sharding.place(rows, MESH)


def given(drawn: dict[str, np.ndarray]) -> Trajectory:
  """Returns a given rollout; its rewards are the given advantages."""
  segments = []
  for i, prompt in enumerate(drawn["prompts"]):
    live = drawn["mask"][i] > 0
    behind = lambda x: np.concatenate([np.zeros(len(prompt)), x])
    tokens = np.concatenate([prompt, drawn["answers"][i][live]])
    spoken = tokens, behind(np.ones(live.sum())), behind(drawn["old"][i][live])
    told = {"reward": drawn["advantages"][i], "group": 0, "truncated": False}
    segments.append(rollout.segment(*spoken, told, 0))
  return packed(segments)


def sampler(folder: Any, model: Any) -> Callable[..., Trajectory]:
  """Returns f(params, key): a graded rollout that no token stops."""
  tokenizer = text.load_tokenizer(str(folder))
  prompts = terms.asked()
  problems = [Problem(x, "", {"key": str(i)}) for i, x in enumerate(prompts)]
  ids = [np.asarray(tokenizer.encode(prompt)) for prompt in prompts]
  budget = rollout.Budget(Sampling(), terms.NEW, ANSWERS)
  endless: Any = types.SimpleNamespace(stops=(-1,))

  def sampled(params: Any, key: jax.Array) -> Trajectory:
    said = rollout.completer(model, params, endless, budget, MESH)(ids, key)
    told = rollout.grade(TASK, tokenizer, problems, said)
    spoken = [rollout.behind(*pair) for pair in zip(ids, said, strict=True)]
    groups = [{**x, "group": i // terms.GROUP} for i, x in enumerate(told)]
    pairs = zip(spoken, groups, strict=True)
    return packed([rollout.segment(*said, told, 0) for said, told in pairs])

  return sampled


def main() -> None:
  """Answers until nobody asks any more."""
  folder, drawn = terms.arguments()
  model, params = huggingface.load(folder, mesh=MESH)
  cfg: Any = {"schedule": "constant", **terms.OPTIMIZER}
  optimizer = optimizers.make(optimizers.Optimizer(**cfg), 1000)
  loss = functools.partial(grpo.loss, clip_low=terms.CLIP, clip_high=terms.CLIP)
  objective = objectives.policy_gradient(
    model, loss, temperature=1.0, mesh=MESH
  )
  learn = steps.compiled(objective, optimizer, clip=terms.NORM)
  fresh = lambda: steps.new_state(params, optimizer, jax.random.key(0))
  state = loop.begin(model, MESH, fresh)[0]()
  advantage, sampled = jax.jit(grpo.advantage), sampler(folder, model)
  fixed = None if drawn is None else given(drawn)

  def step() -> float:
    nonlocal state
    if fixed is None:
      key = jax.random.fold_in(state.key, state.step)
      trajectory = sampled(state.params, key)
      inputs = trajectory, advantage(trajectory)
    else:
      inputs = fixed, fixed.rewards_BT
    state, metrics = learn(state, inputs)
    jax.block_until_ready(state)
    value, tokens = metrics["loss"]
    return float(value / tokens)

  terms.serve(step, "jax")


if __name__ == "__main__":
  main()
