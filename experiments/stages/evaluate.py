"""Students on suites of held-out problems: k samples each, graded, measured."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
from rich import progress

from experiments import loop, pools, settings
from experiments.resolve import resolve
from experiments.settings import Problems, Run
from experiments.stages.distill import checkpoints
from research import sharding
from research.evaluation import measure
from research.grading import extract
from research.sampling import engine, rollout
from research.sampling.sampler import Sampling
from research.training.metrics import replace_file


@dataclasses.dataclass(frozen=True)
class Suite:
  """Problems under a name's prefix ("" is home) and the budget of an answer."""

  prefix: str
  problems: Problems
  count: int
  new_tokens: int


@dataclasses.dataclass(frozen=True)
class Config:
  """`students` are stages' names; `pairs` are (left, right) to subtract."""

  run: Run
  students: tuple[str, ...]
  suites: tuple[Suite, ...]
  samples: int
  ks: tuple[int, ...]
  pairs: tuple[tuple[str, ...], ...]
  rows: int
  temperature: float = 1.0
  top_p: float = 1.0


def _answer(
  config: Config, suite: Suite, params: Any, mesh: Any
) -> list[dict[str, Any]]:
  """Returns a record a sample; see research.evaluation.pass_at_k."""
  tokenizer = settings.load_tokenizer(config.run)
  task, k = resolve(suite.problems.task), config.samples
  problems = pools.pool(suite.problems, suite.count, config.run.seed)
  prompts = [rollout.prompt_ids(tokenizer, p) for p in problems]
  completions = engine.complete(
    config.run.model,
    params,
    [p for p in prompts for _ in range(k)],
    jax.random.fold_in(jax.random.key(config.run.seed), 1),
    sampling=Sampling(config.temperature, top_p=config.top_p),
    new_tokens=suite.new_tokens,
    stop=tokenizer.end,
    rows=config.rows,
    mesh=mesh,
  )
  records = []
  for i, completion in enumerate(completions):
    problem = problems[i // k]
    text = tokenizer.decode(completion.tokens)
    verdict = task.reward(problem, text)
    records.append(
      {
        "problem": problem.meta["key"],
        "difficulty": problem.meta["difficulty"],
        "sample": i % k,
        "prompt": problem.prompt,
        "text": text,
        "gold": problem.answer,
        "answer": extract.strict(text),
        "verdict": verdict.kind,
        "reward": verdict.value,
        "lenient": task.lenient(problem, text).kind,
        "tokens": len(completion.tokens),
        "truncated": completion.truncated,
      }
    )
  return records


def _table(
  config: Config,
  suite: Suite,
  student: str,
  inputs: dict[str, Any],
  workdir: pathlib.Path,
  mesh: Any,
) -> list[dict[str, Any]]:
  """Returns a student's samples, from their file where it is complete."""
  name = f"{suite.prefix.strip('/') or 'home'}-{student}.jsonl"
  path = workdir / "samples" / name
  if path.exists():
    return [json.loads(line) for line in path.read_text().splitlines()]
  model = config.run.model
  params = loop.load_params(checkpoints(inputs, student), model, mesh)
  told = {"student": student, "suite": suite.prefix.strip("/")}
  records = [told | r for r in _answer(config, suite, params, mesh)]
  path.parent.mkdir(exist_ok=True)
  lines = "".join(json.dumps(record) + "\n" for record in records)
  replace_file(path, lines.encode())
  return records


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Evaluates every student on every suite; returns the lines of the summary.

  Names are prefix + student/metric, and for a pair
  prefix + left_minus_right/pass@1.
  """
  mesh = sharding.make_mesh(**dataclasses.asdict(config.run.mesh))
  seed, found = config.run.seed, {}
  work = [(suite, s) for suite in config.suites for s in config.students]
  tables = {}
  for suite, student in progress.track(work, workdir.name.rjust(12)):
    table = _table(config, suite, student, inputs, workdir, mesh)
    tables[suite.prefix, student] = table
    lines = measure.measure(table, config.ks, seed=seed)
    for name, value in lines.items():
      found[f"{suite.prefix}{student}/{name}"] = value
  for suite in config.suites:
    for left, right in config.pairs:
      sides = tables[suite.prefix, left], tables[suite.prefix, right]
      name = f"{suite.prefix}{left}_minus_{right}/pass@1"
      found[name] = measure.compare(*sides, 1, seed=seed)
  return {"summary": found}
