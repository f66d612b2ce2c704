"""A reward model: a linear head over a student learns what is right.

Its loss says what it hears: a Trajectory, whose answers are right or wrong by
the task's reward, or Steps, the lines of an answer up to the first wrong one.
"""

import dataclasses
import functools
import pathlib
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import loop, pools, samples, settings, student
from experiments.resolve import resolve
from experiments.settings import Plugin, Problems, Run, Stage
from research import scoring, sharding
from research.data import packing, text
from research.evaluation import intervals, ranking
from research.models import transformer
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Policy, Problem, Steps, TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Config:
  """`samples` are JSONL files at the first `count` of `problems`, by key.

  `{stage}` at a path's head stands for that stage's folder. A step is `rows`
  answers, each in a row of `length` tokens. What is at the last `held_out`
  problems is never trained on: the judge is measured there.
  """

  run: Run
  start: Stage
  problems: Problems
  count: int
  held_out: int
  samples: tuple[str, ...]
  loss: Plugin
  rows: int
  length: int
  optimizer: optimizers.Optimizer
  loop: loop.Loop
  microbatches: int = 1

  def __post_init__(self):
    """Raises ValueError where nothing is left to learn or to measure."""
    if self.rows < 1 or not self.samples or not 0 < self.held_out < self.count:
      raise ValueError(
        f"judge: rows is {self.rows}, samples {self.samples}, and held_out "
        f"{self.held_out} of {self.count} problems; at least 1 of each is "
        "wanted, and some to train on"
      )
    student.check_rows(self, self.rows, self.length)


class Judged(NamedTuple):
  """An answer's tokens, and 1 in `ends` where `labels` say what is right."""

  key: str
  example: packing.Example


def of_answer(
  task: Any, problem: Problem, said: str, example: packing.Example
) -> packing.Example | None:
  """Returns an answer labelled at its last token; None if it was not graded."""
  verdict = task.reward(problem, said)
  if verdict.value is None or verdict.kind in ("error", "timeout"):
    return None
  ends = np.zeros(len(example["tokens"]), np.float32)
  ends[-1] = 1
  right = float(verdict.kind == "correct")
  return example | {"ends": ends, "labels": np.full_like(ends, right)}


def of_lines(
  tokenizer: text.Tokenizer,
  task: Any,
  problem: Problem,
  said: str,
  example: packing.Example,
) -> packing.Example | None:
  """Returns an answer labelled at the last token of each of its lines.

  Behind the first wrong line none is judged; None where the
  template does not show the answer as it is.
  """
  wrong = task.first_error(problem, said)
  lines = said.split("\n")
  pieces = [tokenizer.piece(int(i)) for i in example["tokens"]]
  start = b"".join(pieces).rfind(said.encode())
  if start < 0:
    return None
  reached = np.cumsum([len(piece) for piece in pieces])
  ends = np.zeros(len(example["tokens"]), np.float32)
  labels = np.zeros_like(ends)
  for i, line in enumerate(lines[: wrong[0] + 1 if wrong else None]):
    start += len(line.encode())
    place = np.searchsorted(reached, start)
    ends[place], labels[place] = 1, wrong is None or i < wrong[0]
    start += 1  # the newline
  return example | {"ends": ends, "labels": labels}


def lay_out(
  taken: Sequence[Judged], kind: type, length: int, pad: int
) -> tuple[Any, np.ndarray]:
  """Returns what a loss of this kind hears, an answer a row, and ends_BT."""
  rows = [[judged.example] for judged in taken]
  out = packing.lay_out(rows, length, pad=pad)
  told: dict[str, Any] = {
    f"{n}_BT": out[n] for n in ("tokens", "positions", "segments")
  }
  if kind is Steps:
    told |= {"labels_BT": out["labels"], "ends_BT": out["ends"]}
    return Steps(**told), out["ends"]
  names = ("logprobs", "group", "truncated", "version")
  told |= {f"{name}_BT": np.zeros_like(out["labels"]) for name in names}
  mask_BT = out["mask"].astype(np.float32)
  told |= {"mask_BT": mask_BT, "rewards_BT": out["labels"]}
  return Trajectory(**told), out["ends"]


def _kind(config: Config) -> type:
  """Returns what the loss hears; ValueError where it is no scores of answers.

  Pairs are for preferences, and an implicit reward has no head.
  """
  heard = set(typing.get_type_hints(resolve(config.loss.name).loss).values())
  for kind in (Steps, Trajectory):
    if kind in heard and Policy not in heard:
      return kind
  raise ValueError(
    f"judge: {config.loss.name} hears neither scores of answers nor of steps: "
    "name research.reward_models.outcome or .process"
  )


def _read(
  config: Config, inputs: dict[str, Any], kind: type
) -> tuple[list[Judged], list[Judged], dict[str, int]]:
  """Returns what is trained on, what is held out, and what is left out.

  Raises:
    ValueError: a sample is of another problem, all of one side are right or all
      wrong, or the task judges no lines.
  """
  task = resolve(config.problems.task)
  tokenizer = settings.load_tokenizer(config.run)
  label = of_answer
  if kind is Steps:
    if not hasattr(task, "first_error"):
      raise ValueError(f"{task.__name__} has no first_error: no line is judged")
    label = functools.partial(of_lines, tokenizer)
  problems = pools.by_key(
    config.problems, config.count, config.run.seed, inputs
  )
  held = set(list(problems)[-config.held_out :])
  sampled, unread = samples.read(config.samples, inputs, problems)
  sides, left = ([], []), {"unread": unread, "ungraded": 0, "too_long": 0}
  answers = [(key, x.strip()) for key, said in sampled.items() for x in said]
  for key, said in answers:
    record = {"prompt": problems[key].prompt, "completion": said}
    example = text.example(tokenizer, record)
    if packing.size_of(example) > config.length:
      left["too_long"] += 1
    elif (judged := label(task, problems[key], said, example)) is None:
      left["ungraded"] += 1
    else:
      sides[key in held].append(Judged(key, judged))
  for name, side in zip(("trained on", "held out"), sides, strict=True):
    labels = {x for j in side for x in judgements(j)}
    if labels != {0, 1}:
      raise ValueError(
        f"judge: of what is {name}, {len(side)} answers, all labels are "
        f"{labels or 'missing'}; right and wrong are wanted ({left})"
      )
  return *sides, left


def judgements(judged: Judged) -> list[float]:
  """Returns the labels of an answer, one a place that is judged."""
  example = judged.example
  return example["labels"][example["ends"] > 0].tolist()


def _begin(
  config: Config, inputs: dict[str, Any], optimizer: Any, mesh: Mesh, name: str
) -> tuple[Callable[[], TrainState], Any]:
  """Returns (make, abstract) of the first state: the student and a head."""
  model = config.run.model
  key = settings.key(config.run, name)

  def first(decoder: Any) -> TrainState:
    params = scoring.init(model, decoder)
    return steps.new_state(params, optimizer, key)

  draw = functools.partial(transformer.init, model)
  shapes = jax.eval_shape(first, jax.eval_shape(draw, key))
  everywhere = NamedSharding(mesh, PartitionSpec())
  decoder = sharding.of_parameters(transformer.abstract(model), mesh)
  laid = {"decoder": decoder, "head_D": everywhere, "offset": everywhere}
  at = sharding.like_parameters(shapes, shapes.params, laid, mesh)
  place = lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)
  make = jax.jit(first, out_shardings=at)
  begun = lambda: make(student.load(config, inputs, config.start, mesh))
  return begun, jax.tree.map(place, shapes, at)


def _measure(
  config: Config, mesh: Mesh, params: Any, kind: type, held: list[Judged]
) -> dict[str, list[tuple[float, float]]]:
  """Returns (score, label) of all that is judged, by problem."""
  model, pad = config.run.model, settings.load_tokenizer(config.run).pad
  score = jax.jit(lambda p, rows: scoring.apply(model, p, rows, mesh))
  found: dict[str, list[tuple[float, float]]] = {j.key: [] for j in held}
  for at in range(0, len(held), config.rows):
    taken = held[at : at + config.rows]
    # One shape is compiled: the last rows are filled up with the first.
    filled = [*taken, *held[:1] * (config.rows - len(taken))]
    rows, ends_BT = lay_out(filled, kind, config.length, pad)
    scores_BT = np.asarray(score(params, sharding.place(rows, mesh)))
    for b, judged in enumerate(taken):
      said = scores_BT[b][ends_BT[b] > 0].tolist()
      found[judged.key] += zip(said, judgements(judged), strict=True)
  return found


def run(
  config: Config, inputs: dict[str, Any], workdir: pathlib.Path
) -> dict[str, Any]:
  """Trains the judge; returns its accuracy and AUC on what is held out.

  Both are of answers or of lines, as the loss hears them; intervals are over
  problems. `majority` is the accuracy of the label that is the more frequent.
  """
  mesh, name = student.make_mesh(config), workdir.name
  pad = settings.load_tokenizer(config.run).pad
  kind = _kind(config)
  taught, held, left = _read(config, inputs, kind)

  def draw(state: TrainState, step: int) -> tuple[Any, dict]:
    del state
    taken = pools.of_step(taught, config.run.seed, step, config.rows)
    rows, _ = lay_out(taken, kind, config.length, pad)
    real = float((rows.segments_BT > 0).sum())
    fill = {"fill": (real, float(rows.tokens_BT.size))}
    return sharding.place(rows, mesh), fill

  loss = functools.partial(resolve(config.loss.name).loss, **config.loss.args)
  objective = objectives.reward_model(config.run.model, loss, mesh)
  optimizer, step = student.compiled(config, config.optimizer, objective)
  state = loop.fit(
    config.loop,
    workdir,
    *_begin(config, inputs, optimizer, mesh, name),
    step,
    draw,
    config=dataclasses.asdict(config),
  )
  found = _measure(config, mesh, state.params, kind, held)
  seed, right = config.run.seed, {}
  for key, x in found.items():
    right[key] = sum((s > 0) == (y > 0.5) for s, y in x) / len(x)
  common = np.mean([y for x in found.values() for _, y in x])
  summary = {
    f"{name}/accuracy": intervals.proportion(right, seed=seed),
    f"{name}/auc": ranking.auc(found, seed=seed),
  }
  counts = {"trained_on": len(taught), "held_out": len(held), **left}
  majority = float(max(common, 1 - common))
  return counts | {"majority": majority, "summary": summary}
