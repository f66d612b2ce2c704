"""A success ledger per skill, and fresh problems where it falls short.

SwS (2506.08989): a first reinforcement tells which problems stay unsolved;
new ones are chosen in proportion to how often that befell each skill.
"""

import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal

from experiments import pools
from experiments.held_out import HeldOut
from experiments.resolve import resolve
from experiments.settings import Problems, Run, Stage
from research import ledger
from research.data import jsonl
from research.training.metrics import replace_file
from research.types import Problem

Answers = list[tuple[str, int, bool]]  # a problem's key, the step, solved


@dataclasses.dataclass(frozen=True)
class Config:
  """`first` is a reinforcement, at the first `pool` of `problems`.

  Of the first `candidates` of `fresh` those that it had, and the `held_out`
  problems, are left out. `count` of the others are written: a `share` of them
  by skill, the rest as they come. A skill's part is proportional to the share
  of its problems that are "weak" (see research.ledger, with `ceiling` and
  `falling`), to the share of its last answers that are "wrong", or "even".
  Skills met in fewer than `least` problems fall short of nothing. The task may
  name a problem's `skill`; else it is its difficulty. A period of the ledger
  has `every` steps.
  """

  run: Run
  first: Stage
  problems: Problems
  pool: int
  fresh: Problems
  candidates: int
  count: int
  by: Literal["weak", "wrong", "even"] = "weak"
  share: float = 1.0
  ceiling: float = 0.5
  falling: float = 0.0
  least: int = 1
  every: int = 10
  held_out: tuple[HeldOut, ...] = ()

  def __post_init__(self):
    """Raises ValueError on counts of none, and what is no share or set."""
    counts = (self.pool, self.candidates, self.count, self.least, self.every)
    if min(counts) < 1 or not 0 <= self.share <= 1:
      raise ValueError(
        f"target: every count of {counts} must be at least 1, and share "
        f"{self.share} in [0, 1]"
      )
    if any(told.problems is None for told in self.held_out):
      raise ValueError("target: held_out wants problems, whose keys are known")


def _skill(task: Any, problem: Problem) -> str:
  """Returns the name of what a problem asks for."""
  if hasattr(task, "skill"):
    return task.skill(problem)
  return f"difficulty_{problem.meta['difficulty']}"


def _answers(
  folder: pathlib.Path, known: Mapping[str, Problem]
) -> Iterator[tuple[str, int, bool]]:
  """Yields (key, step, solved) of what was graded.

  Raises:
    ValueError: an answer is to another problem.
  """
  for path in sorted((folder / "rollouts").glob("*.jsonl")):
    for place, record in jsonl.lines(path):
      key = jsonl.field(record, "key", place)
      if key not in known:
        raise ValueError(
          f"{place}: {key!r} is none of the {len(known)} problems: set "
          "problems and pool as those of the stage"
        )
      if record["reward"] is not None:
        yield key, record["step"], record["verdict"] == "correct"


def _shortfall(
  config: Config, answers: Answers, skills: Mapping[str, str]
) -> dict[str, Fraction]:
  """Returns how much of each skill falls short; `skills` are by key.

  Raises:
    ValueError: no problem was tried twice, so that none can be weak.
  """
  if config.by == "even":
    return dict.fromkeys(skills.values(), Fraction(1))
  if config.by == "wrong":
    by_skill = ((skills[key], step, ok) for key, step, ok in answers)
    last = ledger.curves(by_skill, config.every)
    return {name: 1 - curve[max(curve)] for name, curve in last.items()}
  tried = ledger.curves(answers)
  if all(len(curve) < 2 for curve in tried.values()):
    raise ValueError(
      f"{config.first}: no problem was tried in two steps, so none can be "
      'weak: lower its pool, raise its steps, or take by="wrong"'
    )
  weak = lambda curve: ledger.weak(curve, config.ceiling, config.falling)
  found = {key: weak(curve) for key, curve in tried.items()}
  return ledger.rates(found, skills)


def _fresh(
  config: Config, inputs: dict[str, Any], known: Mapping[str, Problem]
) -> list[Problem]:
  """Returns the candidates that nobody has met, each once.

  Raises:
    ValueError: there are fewer than `count`.
  """
  draw = lambda problems, count: pools.pool(
    problems, count, config.run.seed, inputs
  )
  met = set(known)
  for told in config.held_out:
    assert told.problems is not None
    met |= {p.meta["key"] for p in draw(told.problems, told.count or 0)}
  drawn = {p.meta["key"]: p for p in draw(config.fresh, config.candidates)}
  fresh = [problem for key, problem in drawn.items() if key not in met]
  if len(fresh) < config.count:
    raise ValueError(
      f"target: {len(fresh)} of {config.candidates} candidates are new, and "
      f"{config.count} are wanted: raise candidates or lower count"
    )
  return fresh


def _chosen(
  config: Config,
  fresh: list[Problem],
  skills: list[str],
  shares: Mapping[str, Fraction],
) -> tuple[list[Problem], dict[str, int]]:
  """Returns `count` problems in their order, and how many by each skill."""
  targeted = round(config.count * config.share)
  first = config.count - targeted
  given = ledger.allot(shares, Counter(skills[first:]), targeted)
  left, chosen = Counter(given), fresh[:first]
  for problem, skill in zip(fresh[first:], skills[first:], strict=True):
    if left[skill]:
      left[skill] -= 1
      chosen.append(problem)
  return chosen, given


def _told(
  config: Config, answers: Answers, skills: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
  """Returns what the ledger says of each skill, as JSON."""
  by_skill = [(skills[key], step, ok) for key, step, ok in answers]
  solved = Counter(skill for skill, _, ok in by_skill if ok)
  tried = Counter(skill for skill, _, _ in by_skill)
  problems = Counter(skills[key] for key in {key for key, _, _ in answers})
  curves = ledger.curves(by_skill, config.every)
  return {
    name: {
      "problems": problems[name],
      "answers": tried[name],
      "solved": solved[name],
      "curve": {step: float(y) for step, y in curve.items()},
      "slope": float(ledger.slope(curve)),
      "weak": ledger.weak(curve, config.ceiling, config.falling),
    }
    for name, curve in sorted(curves.items())
  }


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Writes ledger.json, a skill each, and problems.jsonl; returns the sums.

  Skills are `weak` by their own curves; as many fall `short`, and where none
  does the targeted part is even.

  Raises:
    ValueError: `first` has no graded answers, or too few problems are new.
  """
  task = resolve(config.problems.task)
  known = pools.by_key(config.problems, config.pool, config.run.seed, inputs)
  folder = pathlib.Path(inputs[config.first]["folder"])
  answers = list(_answers(folder, known))
  if not answers:
    raise ValueError(f"{folder} has no rollouts with a graded answer")
  skills = {key: _skill(task, problem) for key, problem in known.items()}
  told = _told(config, answers, skills)
  common = {n for n, about in told.items() if about["problems"] >= config.least}
  short = _shortfall(config, answers, skills)
  short = {name: x for name, x in short.items() if name in common}
  fresh = _fresh(config, inputs, known)
  names = [_skill(task, problem) for problem in fresh]
  chosen, given = _chosen(config, fresh, names, short)
  written = Counter(_skill(task, problem) for problem in chosen)
  for name in sorted({*told, *names}):
    told.setdefault(name, {}).update(
      short=float(short.get(name, 0)),
      fresh=names.count(name),
      targeted=given.get(name, 0),
      written=written[name],
    )
  pools.write(workdir / "problems.jsonl", chosen)
  replace_file(workdir / "ledger.json", json.dumps(told, indent=2).encode())
  weak = sum(about.get("weak", False) for about in told.values())
  return {
    "answers": len(answers),
    "skills": len(told),
    "weak": weak,
    "short": sum(x > 0 for x in short.values()),
    "fresh": len(fresh),
    "written": len(chosen),
    "summary": {f"{workdir.name}_{name}": n for name, n in written.items()},
  }
