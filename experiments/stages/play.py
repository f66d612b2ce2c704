"""An environment is played: by a student, to see how well, or to be learned."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import files, pools, settings, student
from experiments.resolve import resolve
from experiments.settings import Problems, Run, Stage
from research import splits
from research.evaluation import intervals
from research.sampling import episodes, rollout
from research.sampling.episodes import Episode
from research.sampling.sampler import Sampling
from research.types import Problem


@dataclasses.dataclass(frozen=True)
class Config:
  """`count` problems of an environment, one episode each.

  `player` names a student's stage; None is the environment's own player, whose
  conversations can be learned from. `turns`, `new_tokens` and `length` bound a
  student's episodes as in reinforcement. Names of the summary begin with
  `prefix`, "" or "name/".
  """

  run: Run
  problems: Problems
  count: int
  player: Stage | None = None
  turns: int = 1
  new_tokens: int = 1
  length: int = 2
  rows: int = 64
  temperature: float = 1.0
  prefix: str = ""

  def __post_init__(self):
    """Raises ValueError where nothing could be played."""
    if min(self.count, self.turns, self.new_tokens, self.rows) < 1:
      raise ValueError(f"{self}: every count must be at least 1")
    settings.check_prefix(self.prefix)
    student.check_length(self, self.length)


def _played(
  config: Config, inputs: dict[str, Any], name: str, problems: Sequence[Problem]
) -> list[Episode]:
  """Returns one episode a problem."""
  environment = resolve(config.problems.task)
  seed = splits.digest(f"play/{config.run.seed}") >> 32
  if config.player is None:
    return [
      episodes.recite(environment, problem, seed + i)
      for i, problem in enumerate(problems)
    ]
  mesh, tokenizer = (
    student.make_mesh(config),
    settings.load_tokenizer(config.run),
  )
  law = Sampling(config.temperature)
  complete = rollout.completer(
    config.run.model,
    student.load(config, inputs, config.player, mesh),
    tokenizer,
    rollout.Budget(law, config.new_tokens, config.rows),
    mesh,
  )
  limits = episodes.Limits(config.turns, config.new_tokens, config.length)
  key = settings.key(config.run, name)
  return episodes.play(
    complete, tokenizer, environment, problems, key, limits, seed
  )


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes episodes.jsonl, conversations that a student may read.

  Returns the mean reward, the share that is correct and that was cut off, and
  each of the environment's own facts; an episode whose grading failed is
  counted as excluded, and in no mean.
  """
  problems = pools.pool(config.problems, config.count, config.run.seed, inputs)
  played = _played(config, inputs, workdir.name, problems)
  environment = resolve(config.problems.task)
  records = [episodes.record(environment, episode) for episode in played]
  keyed = zip(problems, records, strict=True)
  rows = [{"key": p.meta["key"], **record} for p, record in keyed]
  for row in rows:
    del row["prompt"], row["completion"]  # the messages say them
  files.write_lines(workdir / "episodes.jsonl", rows)
  # A problem may come twice, as epochs do: each episode counts.
  told = {str(i): r for i, r in enumerate(rows)}
  graded = {i: r for i, r in told.items() if r["reward"] is not None}
  values = {
    "reward": {k: float(r["reward"]) for k, r in graded.items()},
    "correct": {k: float(r["verdict"] == "correct") for k, r in graded.items()},
    "truncated": {k: float(r["truncated"]) for k, r in graded.items()},
  }
  for fact in rows[0]["facts"]:
    values[fact] = {k: float(r["facts"][fact]) for k, r in graded.items()}
  who = f"{config.prefix}{config.player or workdir.name}"
  seed = config.run.seed
  summary: dict[str, Any] = {
    f"{who}/{name}": intervals.bootstrap(told, seed=seed)
    for name, told in values.items()
    if told
  }
  summary[f"{who}/excluded"] = len(rows) - len(graded)
  return {"episodes": len(rows), "summary": summary}
