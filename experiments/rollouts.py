"""Rollouts for stages that train on them: sampled, graded, logged, packed."""

import dataclasses
import functools
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from experiments import pools, settings, student
from experiments.resolve import resolve
from experiments.settings import Address, Problems
from research import groups, sharding, splits
from research.data import packing
from research.sampling import episodes, rollout
from research.sampling.sampler import Sampling
from research.training import metrics
from research.types import Problem, TrainState, Trajectory

Records = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Bonus:
  """What a text earns by a module of research.rewards, `weight` times."""

  name: Address
  weight: float
  args: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def short(self) -> str:
    """The name it is told by."""
    return self.name.rpartition(".")[2]


@dataclasses.dataclass(frozen=True)
class Rollout:
  """How a step's answers are sampled: `group` to each of `problems`.

  `rows` answers are sampled at a time, of at most `new_tokens` tokens, and
  packed into rows of `length`. One that is cut off is graded like any, or earns
  zero, or is masked: it is graded, and counts in its group, but nothing is
  learned from it (DeepCoder's overlong filter). With `refills` only groups
  whose rewards differ are kept, and so often at most others are drawn in the
  place of the rest (DAPO's dynamic sampling). With `between`, two rewards,
  groups whose rewards are alike, or whose mean is not between the two, teach
  nothing (PRIME's filter): they are masked, or, with refills, replaced. With
  `turns` the task is an environment, and an episode has so many turns of the
  policy within `length` tokens. What grading gives is raised by the `bonuses`.
  """

  problems: int
  group: int
  new_tokens: int
  length: int
  rows: int
  temperature: float = 1.0
  truncated: Literal["graded", "zero", "masked"] = "graded"
  refills: int | None = None
  between: tuple[float, ...] | None = None
  turns: int | None = None
  bonuses: tuple[Bonus, ...] = ()

  def __post_init__(self):
    """Raises ValueError on counts and laws that cannot be trained on."""
    sizes = (self.problems, self.group, self.new_tokens, self.length, self.rows)
    if min(*sizes, 1 if self.turns is None else self.turns) < 1:
      raise ValueError(f"{self}: every count must be at least 1")
    if self.refills is not None and self.refills < 0:
      raise ValueError(f"{self}: refills must be at least 0, or None")
    if self.between is not None and len(self.between) != 2:
      raise ValueError(f"{self}: between wants the least and the most mean")
    if self.bonuses and self.turns is not None:
      raise ValueError(f"{self}: an episode's turns earn no bonuses")
    if self.temperature <= 0:
      raise ValueError(
        f"{self}: a greedy policy has no gradient; temperature must be > 0"
      )


class Rollouts:
  """Graded samples of the current policy."""

  def __init__(
    self,
    config: Any,
    inputs: dict[str, Any],
    problems: Problems,
    size: int,
    workdir: pathlib.Path,
    mesh: Any,
    parts: int = 1,
    marks: Mapping[str, Any] = types.MappingProxyType({}),
  ):
    """Draws a pool of `size` problems; `config.rollout` says how they go.

    The rows of a step can be cut into `parts`, of whole microbatches each.
    Every record that is logged has the `marks`.
    """
    self._parts, self._marks = parts, marks
    self._config, self._workdir, self._mesh = config, workdir, mesh
    self._tokenizer = settings.load_tokenizer(config.run)
    self._task = resolve(problems.task)
    self._bonuses = {
      bonus.short: (bonus.weight, _earning(bonus))
      for bonus in config.rollout.bonuses
    }
    self._pool = pools.pool(problems, size, config.run.seed, inputs)
    self._check_pool()

  def sample(self, state: TrainState, step: int) -> tuple[Trajectory, dict]:
    """Returns a step's trajectory and what its samples say; logs them all.

    Raises:
      ValueError: after all refills no group is left to learn from.
    """
    cfg = self._config.rollout
    rounds = 1 + (cfg.refills or 0)
    records: Records = []
    kept: list[packing.Example] = []
    live = 0
    for number in range(rounds):
      told, examples = self._draw(state, step, step * rounds + number, number)
      records += told
      learned, count = self._teaching(told, examples)
      kept, live = kept + learned, live + count
      if len(kept) >= cfg.problems * cfg.group:
        break
    metrics.write_rollouts(self._workdir, step, records)
    if not kept:
      raise ValueError(f"step {step}: {_why_none(records)}")
    return self._packed(kept), self._seen(records, live)

  def _draw(
    self, state: TrainState, step: int, number: int, turn: int
  ) -> tuple[Records, list[packing.Example]]:
    """Returns one draw of all groups: a record and a segment each sample."""
    cfg, run = self._config.rollout, self._config.run
    asked = pools.of_step(self._pool, run.seed, number, cfg.problems)
    problems = [p for p in asked for _ in range(cfg.group)]
    told, spoken = self._answer(state, problems, number)
    first = turn * cfg.problems
    records = [
      {
        "step": step,
        "group": first + i // cfg.group,
        **self._marks,
        **record,
        **self._cut(record),
      }
      for i, record in enumerate(map(self._raised, told))
    ]
    pairs = zip(spoken, records, strict=True)
    return records, [self._segment(s, r, int(state.step)) for s, r in pairs]

  def _segment(
    self, spoken: rollout.Spoken, record: dict[str, Any], version: int
  ) -> packing.Example:
    made = rollout.segment(*spoken, record, version)
    cut = self._config.rollout.truncated == "masked" and record["truncated"]
    return rollout.unheard(made) if cut else made

  def _answer(
    self, state: TrainState, problems: Sequence[Problem], number: int
  ) -> tuple[Records, list[rollout.Spoken]]:
    """Returns what was graded of the policy's answers, and their tokens."""
    cfg = self._config.rollout
    key = jax.random.fold_in(state.key, number)
    complete = rollout.completer(
      student.decoder(self._config),
      student.params(self._config, state),
      self._tokenizer,
      rollout.Budget(Sampling(cfg.temperature), cfg.new_tokens, cfg.rows),
      self._mesh,
    )
    if cfg.turns is None:
      prompts = [rollout.prompt_ids(self._tokenizer, p) for p in problems]
      said = complete(prompts, key)
      told = rollout.grade(self._task, self._tokenizer, problems, said)
      pairs = zip(prompts, said, strict=True)
      return told, [rollout.behind(*pair) for pair in pairs]
    limits = episodes.Limits(cfg.turns, cfg.new_tokens, cfg.length)
    seed = splits.digest(f"{self._config.run.seed}/{number}") >> 32
    played = episodes.play(
      complete, self._tokenizer, self._task, problems, key, limits, seed
    )
    told = [episodes.record(self._task, episode) for episode in played]
    return told, [(e.tokens, e.mask, e.logprobs) for e in played]

  def _raised(self, record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record whose reward has its bonuses, told beside it."""
    if record["reward"] is None or not self._bonuses:
      return record
    earned = {
      name: (weight, bonus(record["completion"]))
      for name, (weight, bonus) in self._bonuses.items()
    }
    reward = record["reward"] + sum(w * x for w, x in earned.values())
    told = {name: x for name, (_, x) in earned.items()}
    return record | {"reward": reward, "bonuses": told}

  def _cut(self, record: dict[str, Any]) -> dict[str, Any]:
    """Returns the reward of an answer that was cut off, where it is another."""
    zero = self._config.rollout.truncated == "zero" and record["truncated"]
    return {"reward": 0.0} if zero and record["reward"] is not None else {}

  def _teaching(
    self, records: Records, examples: list[packing.Example]
  ) -> tuple[list[packing.Example], int]:
    """Returns what a draw is learned from, and how many are of live groups.

    All groups are, or those that may teach; without refills the others stay,
    masked.
    """
    cfg = self._config.rollout
    if cfg.refills is None and cfg.between is None:
      return examples, len(examples)
    live = _live(records, cfg.between)
    flags = [record["group"] in live for record in records]
    pairs = list(zip(examples, flags, strict=True))
    if cfg.refills is not None:
      return [e for e, flag in pairs if flag], sum(flags)
    return [e if flag else rollout.masked(e) for e, flag in pairs], sum(flags)

  def _packed(self, kept: list[packing.Example]) -> Trajectory:
    cfg = self._config.rollout
    trajectory = rollout.pack(
      _renumbered(kept[: cfg.problems * cfg.group]),
      length=cfg.length,
      multiple=self._multiple(),
      pad=self._tokenizer.pad,
    )
    return sharding.place(trajectory, self._mesh)

  def _seen(self, records: Records, kept: int) -> dict:
    """Returns what all samples say of the policy, and which share is kept."""
    seen = rollout.summarise(records)
    for name in self._bonuses:
      told = [r["bonuses"][name] for r in records if "bonuses" in r]
      seen[f"bonus_{name}"] = (sum(told), float(len(told)))
    cfg = self._config.rollout
    if cfg.refills is not None or cfg.between is not None:
      seen["kept"] = (float(kept), float(len(records)))
    return seen

  def _check_pool(self) -> None:
    cfg = self._config.rollout
    if cfg.turns is not None and any(p.begun for p in self._pool):
      raise ValueError(
        "an episode begins with its environment, and problems here have begun "
        "answers: set rollout.turns to None, or take them from another file"
      )
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
    least = ways * self._config.microbatches * self._parts
    eighth = -(-cfg.problems * cfg.group // 8)
    return -(-eighth // least) * least


def _why_none(records: Records) -> str:
  """Returns why nothing can be learned from any group, and what helps."""
  groups_ = len({record["group"] for record in records})
  if all(record["reward"] is None for record in records):
    return (
      f"no answer of all {groups_} groups could be graded: see why in the "
      "verdicts of its rollouts"
    )
  return (
    f"the answers of all {groups_} groups earn the same, or are not of the "
    "wanted mean: take easier or harder problems, or larger groups"
  )


def _earning(bonus: Bonus) -> Callable[[str], float]:
  return functools.partial(resolve(bonus.name).bonus, **bonus.args)


def _renumbered(examples: list[packing.Example]) -> list[packing.Example]:
  """Returns samples whose groups count from 0, so that they are below B T."""
  ids = {int(e["group"][0]) for e in examples} - {-1}
  dense = {group: i for i, group in enumerate(sorted(ids))} | {-1: -1}
  new = lambda e: np.full_like(e["group"], dense[int(e["group"][0])])
  return [{**e, "group": new(e)} for e in examples]


def _live(records: Records, between: Sequence[float] | None) -> set[int]:
  """Returns the groups whose rewards differ, and whose mean is `between` two.

  What was not graded moves no other sample, and goes with its group.
  """
  graded = [r for r in records if r["reward"] is not None]
  rewards, ids = (
    np.array([r[name] for r in graded]) for name in ("reward", "group")
  )
  live = set(ids[groups.varied(rewards, ids)].tolist())
  if between is None:
    return live
  low, high = between
  return {g for g in live if low <= rewards[ids == g].mean() <= high}
