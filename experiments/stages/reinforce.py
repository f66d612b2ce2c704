"""Reinforcement: sample groups of answers, grade them, follow the gradient."""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import ahead, beside, loop, student
from experiments.beside import Beside
from experiments.resolve import resolve
from experiments.rollouts import Rollout, Rollouts
from experiments.settings import Plugin, Problems, Run, Stage
from research import sharding
from research.models.config import Lora
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` names the stage whose student is reinforced.

  `pool` problems are drawn once; each step takes its own of them. `algorithm`
  is a module with `advantage` and `loss`, called with `advantage` and the
  plug-in's args. A step makes `epochs` passes over its rows in `minibatches`
  updates each; the ratio of a policy is to the "sampler" that wrote, or to the
  "trainer"'s own scores `before` the first update. A `critic` learns beside the
  policy for PPO, an implicit reward model, `process`, for PRIME.

  A KL is from the stage `reference`, frozen, or from the policy itself as it
  was at the last multiple of `refresh` steps. With a `lag` of 1 a step's
  answers are sampled while the step before it trains, so by an older policy; a
  step that has waited `patience` seconds for them says where they are stuck.
  Logits are made of `block` tokens at a time, see kernels.vocab.
  With `lora` only adapters over `start` are trained, and `base_bits` may hold
  what is beneath them in few bits.
  """

  run: Run
  start: Stage
  problems: Problems
  pool: int
  rollout: Rollout
  algorithm: Plugin
  advantage: dict[str, Any]
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  reference: Stage | None = None
  refresh: int | None = None
  critic: Beside | None = None
  process: Beside | None = None
  epochs: int = 1
  minibatches: int = 1
  before: Literal["sampler", "trainer"] = "sampler"
  lag: Literal[0, 1] = 0
  patience: float = 3600.0
  microbatches: int = 1
  block: int = 512
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on what no step could be made of."""
    student.check(self)
    if min(self.epochs, self.minibatches, self.block) < 1:
      raise ValueError(
        f"reinforce: {self.epochs} epochs of {self.minibatches} minibatches, "
        f"{self.block} tokens at a time, are no update: at least 1 of each is "
        "wanted"
      )
    self._check_reference()
    self._check_others()
    if not 0 < self.patience <= threading.TIMEOUT_MAX:
      raise ValueError(
        f"reinforce: patience is {self.patience}: so many seconds, above 0 and "
        f"at most {threading.TIMEOUT_MAX:.0f}, can be waited for"
      )
    if self.lag and self.run.mesh.size > 1:
      raise ValueError(
        "reinforce: a lag lets two programs run at once, and over several "
        "devices their collectives could wait for each other: set lag to 0"
      )

  def _check_reference(self) -> None:
    if self.refresh is not None and (self.reference or self.refresh < 1):
      raise ValueError(
        f"reinforce: refresh is {self.refresh} and reference "
        f"{self.reference!r}: the reference is a stage, or the policy of every "
        "so many steps"
      )
    if self.full and self.reference is None:
      raise ValueError('kl="full" is from a reference: name its stage')

  def _check_others(self) -> None:
    if self.lora and (self.critic or self.process):
      raise ValueError(
        "reinforce: a critic and an implicit reward model are trained whole, "
        "beside adapters they would outweigh them: set lora to None"
      )
    self._check_process()
    valued = hasattr(resolve(self.algorithm.name), "value_loss")
    if valued != (self.critic is not None):
      raise ValueError(
        f"reinforce: {self.algorithm.name} "
        f"{'wants a critic beside it' if valued else 'has no use for a critic'}"
      )

  def _check_process(self) -> None:
    law = getattr(resolve(self.algorithm.name), "PROCESS", None)
    if law == "wanted" and self.process is None:
      raise ValueError(
        f"reinforce: {self.algorithm.name} wants process rewards: set process"
      )
    if law is None and self.process is not None:
      raise ValueError(
        f"reinforce: {self.algorithm.name} has no use for process rewards: "
        "set process to None"
      )
    if self.process and not (self.reference or self.refresh):
      raise ValueError(
        "reinforce: an implicit reward is from a reference: name its stage"
      )
    if self.process and self.rollout.bonuses:
      raise ValueError(
        "reinforce: an implicit reward is fitted to rewards in [0, 1], which "
        "bonuses exceed: take one of the two"
      )

  @property
  def updates(self) -> int:
    """How many updates a step has."""
    return self.epochs * self.minibatches

  @property
  def full(self) -> bool:
    """Whether the loss hears the reference's whole distribution."""
    return self.algorithm.args.get("kl") == "full"


def minibatches[T](
  inputs: T, live_B: np.ndarray, epochs: int, parts: int, seed: tuple[int, int]
) -> list[T]:
  """Returns the rows of `inputs` dealt to `parts`, shuffled anew each epoch.

  Rows that are live, and those that only fill up, are each dealt evenly; a part
  without any that is live would move the optimizer by nothing, and is left out:
  all but the first, where no row is live, so that a step has something to say.
  It is no update, and a warm-up, which counts them, lasts so much longer.
  """
  rng = np.random.default_rng(seed)
  live, spare = np.flatnonzero(live_B), np.flatnonzero(~live_B)
  orders = [
    np.concatenate([rng.permutation(live), spare]) for _ in range(epochs)
  ]
  dealt = [order[i::parts] for order in orders for i in range(parts)]
  take = lambda rows: jax.tree.map(lambda x: x[np.sort(rows)], inputs)
  told = [rows for rows in dealt if live_B[rows].any()] or dealt[:1]
  return [take(rows) for rows in told]


class Witnesses:
  """Those beside a policy who say something of its rollouts."""

  def __init__(self, config: Config, inputs: dict[str, Any], mesh: Mesh):
    """Loads the reference, where it is a stage's."""
    self._config = config
    self.others = beside.companions(config, mesh)
    self.reference = None
    if config.reference is not None:
      self.reference = student.read_only(
        config, inputs, config.reference, None, mesh
      )
    self._own = beside.scorer(config, student.decoder(config), mesh)
    self._theirs = beside.scorer(config, config.run.model, mesh)

  def extra(self, params: Any) -> dict[str, Any]:
    """Returns what a state holds beside the policy's first parameters."""
    config = self._config
    kept = {
      name: other.begin(ahead.copied(params))
      for name, other in self.others.items()
    }
    if config.refresh is not None:
      kept["reference"] = ahead.copied(params)
    if config.lag:
      kept["sampler"] = ahead.copied(params)
    return kept

  def tell(self, state: TrainState, trajectory: Trajectory) -> Trajectory:
    """Returns the trajectory with what each says of it."""
    config, of = self._config, dataclasses.replace
    as_policy = lambda params: student.params(config, of(state, params=params))
    if config.before == "trainer":
      own_BT = self._own(as_policy(state.params), trajectory)
      trajectory = of(trajectory, old_logprobs_BT=own_BT)
    if config.refresh is not None:
      params = as_policy(state.extra["reference"])
      trajectory = of(trajectory, ref_logprobs_BT=self._own(params, trajectory))
    elif self.reference is not None:
      ref_BT = self._theirs(self.reference, trajectory)
      trajectory = of(trajectory, ref_logprobs_BT=ref_BT)
    for name, other in self.others.items():
      trajectory = other.tell(state.extra[name].params, trajectory)
    return trajectory


def refreshing(step: steps.Step, every: int) -> steps.Step:
  """Returns a step after which the reference is the policy, `every` so many."""

  def whole(state: TrainState, inputs: Any) -> tuple[TrainState, dict]:
    state, told = step(state, inputs)
    if int(state.step) % every == 0:
      extra = state.extra | {"reference": ahead.copied(state.params)}
      state = dataclasses.replace(state, extra=extra)
    return state, told

  return whole


def _around(
  config: Config, others: dict[str, beside.Companion]
) -> Callable[[steps.Step], steps.Step]:
  """Returns what makes a whole step of one update of the policy."""

  def made(step: steps.Step) -> steps.Step:
    step = beside.together(step, others)
    if config.updates > 1:
      step = steps.several(step)
    if config.refresh is not None:
      step = refreshing(step, config.refresh)
    return ahead.keeping(step) if config.lag else step

  return made


def _drawing(
  config: Config, rollouts: Rollouts, witnesses: Witnesses, mesh: Mesh
) -> loop.Draw:
  """Returns what draws the inputs of a step, and says what was sampled."""
  module = resolve(config.algorithm.name)
  advantage = jax.jit(functools.partial(module.advantage, **config.advantage))
  sample = lambda state, step: (rollouts.sample(state, step), None)
  if config.lag:
    sample = ahead.drawing(rollouts.sample, config.loop.steps, config.patience)

  def draw(state: TrainState, step: int) -> tuple[Any, dict]:
    (trajectory, seen), now = sample(state, step)
    trajectory = witnesses.tell(state, trajectory)
    inputs = trajectory, advantage(trajectory)
    if config.updates > 1:
      seed = (config.run.seed, step)
      live_B = np.asarray(trajectory.mask_BT).any(axis=1)
      parts = minibatches(
        inputs, live_B, config.epochs, config.minibatches, seed
      )
      inputs = [sharding.place(part, mesh) for part in parts]
    return (inputs, now) if config.lag else inputs, seen

  return draw


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the policy; returns how many answers it learned from at most."""
  mesh = student.make_mesh(config)
  rollouts = Rollouts(
    config,
    inputs,
    config.problems,
    config.pool,
    workdir,
    mesh,
    config.minibatches,
  )
  witnesses = Witnesses(config, inputs, mesh)
  loss = resolve(config.algorithm.name).loss
  objective = objectives.policy_gradient(
    student.decoder(config),
    functools.partial(loss, **config.algorithm.args),
    temperature=config.rollout.temperature,
    mesh=mesh,
    block=config.block,
    reference=config.run.model if config.full else None,
  )
  student.train(
    config,
    inputs,
    workdir,
    objective,
    _drawing(config, rollouts, witnesses, mesh),
    frozen=witnesses.reference if config.full else None,
    extra=witnesses.extra,
    updates=config.updates,
    around=_around(config, witnesses.others),
  )
  cfg = config.rollout
  answers = config.loop.steps * cfg.problems * cfg.group
  return {"answers": answers, **student.adapters(config)}
