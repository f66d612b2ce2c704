"""Reinforcement: sample groups of answers, grade them, follow the gradient."""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import jax

from experiments import loop, pools, settings, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from research import sharding
from research.models.config import Lora
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.training import metrics, objectives, optimizers
from research.types import TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Rollout:
  """How a step's answers are sampled: `group` to each of `problems`.

  `rows` answers are sampled at a time, of at most `new_tokens` tokens, and
  packed into rows of `length`.
  """

  problems: int
  group: int
  new_tokens: int
  length: int
  rows: int
  temperature: float = 1.0

  def __post_init__(self):
    """Raises ValueError on counts and laws that cannot be trained on."""
    sizes = (self.problems, self.group, self.new_tokens, self.length, self.rows)
    if min(sizes) < 1:
      raise ValueError(f"{self}: every count must be at least 1")
    if self.temperature <= 0:
      raise ValueError(
        f"{self}: a greedy policy has no gradient; temperature must be > 0"
      )


@dataclasses.dataclass(frozen=True)
class Config:
  """`start` names the stage whose student is reinforced.

  `pool` problems are drawn once; each step takes its own of them. `algorithm`
  is a module with `advantage` and `loss`, called with `advantage` and the
  plug-in's args. With `lora` only adapters over `start` are trained, and
  `base_bits` may hold what is beneath them in few bits.
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
  microbatches: int = 1
  lora: Lora | None = None
  base_bits: Literal[4, 8] | None = None

  def __post_init__(self):
    """Raises ValueError on adapters over nothing."""
    student.check(self)


class Rollouts:
  """Graded samples of the current policy."""

  def __init__(
    self,
    config: Any,
    problems: Problems,
    size: int,
    workdir: pathlib.Path,
    mesh: Any,
  ):
    """Draws a pool of `size` problems; `config.rollout` says how they go."""
    self._config, self._workdir, self._mesh = config, workdir, mesh
    self._tokenizer = settings.load_tokenizer(config.run)
    self._task = resolve(problems.task)
    self._pool = pools.pool(problems, size, config.run.seed)
    self._check_length()

  def sample(self, state: TrainState, step: int) -> tuple[Trajectory, dict]:
    """Returns a step's trajectory and what its samples say; logs them all."""
    cfg, run = self._config.rollout, self._config.run
    asked = pools.of_step(self._pool, run.seed, step, cfg.problems)
    problems = [p for p in asked for _ in range(cfg.group)]
    completions = rollout.write(
      student.decoder(self._config),
      student.params(self._config, state),
      self._tokenizer,
      problems,
      jax.random.fold_in(state.key, step),
      rollout.Budget(Sampling(cfg.temperature), cfg.new_tokens, cfg.rows),
      self._mesh,
    )
    graded = rollout.grade(self._task, self._tokenizer, problems, completions)
    records = [
      {"step": step, "group": i // cfg.group, **record}
      for i, record in enumerate(graded)
    ]
    metrics.write_rollouts(self._workdir, step, records)
    trajectory = rollout.to_trajectory(
      self._tokenizer,
      problems,
      completions,
      records,
      length=cfg.length,
      multiple=self._multiple(),
      version=step,
    )
    seen = rollout.summarise(records)
    return sharding.place(trajectory, self._mesh), seen

  def _check_length(self) -> None:
    cfg = self._config.rollout
    ids = lambda problem: rollout.prompt_ids(self._tokenizer, problem)
    longest = max(len(ids(problem)) for problem in self._pool)
    if longest + cfg.new_tokens > cfg.length:
      raise ValueError(
        f"prompts of up to {longest} tokens and {cfg.new_tokens} new ones do "
        f"not fit rows of {cfg.length}: raise rollout.length or lower "
        "rollout.new_tokens"
      )

  def _multiple(self) -> int:
    """Rows come in eighths of the most there can be, split over all devices."""
    cfg, mesh = self._config.rollout, self._mesh
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    least = ways * self._config.microbatches
    eighth = -(-cfg.problems * cfg.group // 8)
    return -(-eighth // least) * least


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the policy; returns how many answers it gave."""
  mesh = student.make_mesh(config)
  module = resolve(config.algorithm.name)
  rollouts = Rollouts(config, config.problems, config.pool, workdir, mesh)
  advantage = jax.jit(functools.partial(module.advantage, **config.advantage))

  def draw(state: TrainState, step: int) -> tuple[Any, dict]:
    trajectory, seen = rollouts.sample(state, step)
    return (trajectory, advantage(trajectory)), seen

  objective = objectives.policy_gradient(
    student.decoder(config),
    functools.partial(module.loss, **config.algorithm.args),
    temperature=config.rollout.temperature,
    mesh=mesh,
  )
  student.train(config, inputs, workdir, objective, draw)
  cfg = config.rollout
  answers = config.loop.steps * cfg.problems * cfg.group
  return {"answers": answers, **student.adapters(config)}
