"""Reinforcement of a checkpoint by rules alone: what published recipes share.

On disk are a checkpoint, `config.base.directory`, and under `config.data_dir`
the problems' files; the sources' own problems are named in each recipe. A form
`:small` wants neither, and two cores for minutes: a student of 0.2 M that has
read answers to countdown problems is reinforced by the source's law, at a rate
and at sizes that fit it. `:test` is the same in seconds and learns nothing.
Beside every result stands pass@k of what it began from.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.configs import _pair

COUNTDOWN = "research.tasks.countdown"
PROMPT = 1024  # tokens that a published recipe's prompt may have
ANSWER, ROOM = 20, 64  # tokens of an expression, and with its prompt
TWO = 72  # of two conversations, most of which have 34
HELD_OUT = 256  # of the 297 problems that no one reads
# The small form: the least of ANSWER with which every right answer ends,
# problems a step, answers each, a rate.
LEAST, PROBLEMS, GROUP, RATE, STEPS = 16, 24, 8, 3e-4, 60


class Source(NamedTuple):
  """The problems of training and of evaluation, and how many are evaluated.

  Without args of their own they are read from `config.data_dir`.
  """

  train: dict[str, Any]
  test: dict[str, Any]
  count: int


GSM8K = Source(
  {"task": "research.tasks.gsm8k", "split": "train"},
  {"task": "research.tasks.gsm8k", "split": "test"},
  1319,
)

# What a source gives of a stage of reinforcement, by the length of its answers.
Law = Callable[[int], dict[str, Any]]


def recipe(
  arg: str,
  preset: str,
  law: Law,
  stages: list[tuple[int, int, int]],
  source: Source = GSM8K,
) -> ConfigDict:
  """Returns base -> students -> evaluation; "small" and "test" shrink it.

  `stages` are (new tokens, group, steps), each begun from the one before.
  """
  if arg in ("small", "test"):
    test = arg == "test"
    config, begun = small(test), ("annotate", "base")
    stages, source = (
      _fitting(test, stages),
      _countdowns(4 if test else HELD_OUT),
    )
    shape = functools.partial(_small_shape, test)
  else:
    config, begun = published(preset, stages), ("base",)
    args = {"args": ConfigDict({"data_dir": config.get_ref("data_dir")})}
    read = (args | source.train, args | source.test, source.count)
    shape, source = _published_shape, Source(*read)
  start, names = "base", []
  for place, (new, group, steps) in enumerate(stages, 1):
    name = "student" if len(stages) == 1 else f"student_{place}"
    told = shape(law(new), {"new_tokens": new, "group": group})
    told |= {"start": start, "problems": source.train}
    config[name] = told | {"loop": {"steps": steps, "save_every": 20}}
    names, start = [*names, name], name
  students, longest = ("base", *names), max(new for new, _, _ in stages)
  config.evaluate = evaluate(arg, students, source, longest)
  config.stages = (*begun, *names, "evaluate")
  return config


def countdown(split: str, **rest: Any) -> dict[str, Any]:
  """Three numbers and a target, small enough for a small student."""
  return {"task": COUNTDOWN, "split": split, "args": {"largest": 12} | rest}


def policy(
  test: bool, algorithm: str, args: dict[str, Any], asked: int, **rest: Any
) -> dict[str, Any]:
  """A student of 0.6 M at eight answers to each of `asked` countdowns a step.

  Two epochs of two minibatches, so that ratios leave 1.
  """
  size = {"problems": 2, "group": 4, "rows": 8}
  if not test:
    size = {"problems": asked, "group": 8, "rows": 8 * asked}
  return {
    "stage": "experiments.stages.reinforce",
    "problems": countdown("train"),
    "rollout": size | {"new_tokens": ANSWER, "length": TWO},
    "algorithm": {"name": f"research.algorithms.{algorithm}", "args": args},
    "advantage": {},
    "epochs": 2,
    "minibatches": 2,
    "optimizer": {"learning_rate": 1e-4, "schedule": "constant"},
  } | rest


def _countdowns(count: int) -> Source:
  return Source(countdown("train"), countdown("test"), count)


def evaluate(
  arg: str, students: tuple[str, ...], source: Source, new_tokens: int
) -> dict[str, Any]:
  """All students, from what they began from on, at the longest length."""
  samples, rows = {"": (16, 64), "small": (8, 512), "test": (2, 8)}[arg]
  suite = {"prefix": "", "problems": source.test, "count": source.count}
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [suite | {"new_tokens": new_tokens}],
    "samples": samples,
    "ks": [1, samples],
    "pairs": [[students[-1], "base"]],
    "rows": rows,
  }


def published(preset: str, stages: list[tuple[int, int, int]]) -> ConfigDict:
  """A run over the checkpoint `base` on eight devices."""
  config = ConfigDict({"seed": 0, "data_dir": ""})
  room = PROMPT + max(new for new, _, _ in stages)
  usual = {"dtype": "bfloat16", "remat": "everything", "context": room}
  config.model = {"preset": preset} | usual
  config.mesh = {"data": 1, "fsdp": 8, "tensor": 1, "context": 1}
  base = ConfigDict({"directory": ""})
  base.stage = "experiments.stages.checkpoint"
  config.base, config.tokenizer = base, base.get_ref("directory")
  return config


def small(test: bool) -> ConfigDict:
  """A run over `base`, a small student that has read answers alone."""
  config = _pair.base("test" if test else "", width=64, layers=3)
  config.annotate = _pair.annotate(test, problems=countdown("train"))
  answers = {"{annotate}/answers.jsonl": 1.0}
  config.base = _pair.distill(answers, 500, test, length=ROOM)
  return config


def _fitting(
  test: bool, stages: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
  """Returns stages of the small form, the last the longest."""
  longest = max(new for new, _, _ in stages)
  fit = lambda new: max(ANSWER * new // longest, LEAST)
  steps = 2 if test else STEPS // len(stages)
  group = lambda n: min(n, 4 if test else GROUP)
  return [(fit(new), group(n), steps) for new, n, _ in stages]


def _published_shape(
  law: dict[str, Any], sizes: dict[str, int]
) -> dict[str, Any]:
  """A source's law at its own sizes."""
  usual = {"before": "trainer", "pool": 7473, "microbatches": 8}
  room = {"length": PROMPT + sizes["new_tokens"], "rows": 64}
  told = {"stage": "experiments.stages.reinforce"} | usual | law
  return told | {"rollout": law["rollout"] | sizes | room}


def _small_shape(
  test: bool, law: dict[str, Any], sizes: dict[str, int]
) -> dict[str, Any]:
  """A source's law at sizes and a rate that fit the small form."""
  problems, rows = (2, 8) if test else (PROBLEMS, PROBLEMS * GROUP)
  room = sizes | {"problems": problems, "rows": rows, "length": ROOM}
  # no prompt asks for a form; an untrained base earns nothing that differs
  kept = law["rollout"] | {"bonuses": ()}
  kept |= {"refills": None} if test else {}
  parts = 1 if test else min(law.get("minibatches", 1), 4)
  few = {"microbatches": 1, "minibatches": parts, "pool": 16 if test else 4000}
  factor = RATE / law["optimizer"]["learning_rate"]
  others = {
    name: law[name] | {"optimizer": _faster(law[name]["optimizer"], factor)}
    for name in ("critic", "process")
    if name in law
  }
  told = {"stage": "experiments.stages.reinforce", "before": "trainer"} | law
  return (
    told
    | few
    | others
    | {"optimizer": _faster(law["optimizer"], factor)}
    | {"rollout": kept | room}
  )


def _faster(optimizer: dict[str, Any], factor: float) -> dict[str, Any]:
  return optimizer | {"learning_rate": factor * optimizer["learning_rate"]}
