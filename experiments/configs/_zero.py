"""Reinforcement of a checkpoint by rules alone: what published recipes share.

On disk are a checkpoint, `config.base.directory`, and under `config.data_dir`
GSM8K's files; the sources' own problems are named in each recipe. `:test` needs
neither: its base has learned a little from a solver. Beside every result stands
pass@k of the checkpoint that it began from.
"""

from typing import Any

from ml_collections import ConfigDict

CHAIN = "research.tasks.chain"
GSM8K = "research.tasks.gsm8k"


def recipe(
  arg: str,
  preset: str,
  student: dict[str, Any],
  stages: list[tuple[int, int, int]],
) -> ConfigDict:
  """Returns base -> students -> evaluation; "test" shrinks it to seconds.

  `student` has the fields of experiments.stages.reinforce that a source gives.
  `stages` are (new tokens, group, steps), each begun from the one before.
  """
  test = arg == "test"
  config = ConfigDict()
  config.seed, config.data_dir = 0, ""
  args = ConfigDict({"data_dir": config.get_ref("data_dir")})
  split = lambda name: {"task": GSM8K, "split": name, "args": args}
  if test:
    split = lambda name: {"task": CHAIN, "split": name}
    stages = [(32, 4, 2) for _ in stages]
    config.update(_small(split("train")))
  else:
    config.update(_published(preset, 1024 + max(new for new, _, _ in stages)))
    config.base = base = ConfigDict({"directory": ""})
    base.stage = "experiments.stages.checkpoint"
    config.tokenizer = base.get_ref("directory")
  names, start = [], "base"
  for place, sizes in enumerate(stages, 1):
    name = "student" if len(stages) == 1 else f"student_{place}"
    about = reinforce(student, start, split("train"), sizes, test)
    config[name] = about
    names, start = [*names, name], name
  config.evaluate = evaluate(["base", *names], split("test"), test, stages)
  begun = ("annotate", "base") if test else ("base",)
  config.stages = (*begun, *names, "evaluate")
  return config


def reinforce(
  student: dict[str, Any],
  start: str,
  problems: dict[str, Any],
  sizes: tuple[int, int, int],
  test: bool,
) -> dict[str, Any]:
  """One stage of reinforcement at one length."""
  new_tokens, group, steps = sizes
  law = dict(student["rollout"])
  if test:  # an untrained base earns nothing that differs
    law |= {"problems": 2, "refills": None}
  length = 96 if test else 1024 + new_tokens
  shape = {"new_tokens": new_tokens, "length": length, "group": group}
  return student | {
    "stage": "experiments.stages.reinforce",
    "start": start,
    "before": "trainer",
    "problems": problems,
    "pool": 16 if test else 7473,
    "rollout": law | shape | {"rows": 8 if test else 64},
    "reference": "base" if student.get("reference") else None,
    "minibatches": 1 if test else student.get("minibatches", 1),
    "microbatches": 1 if test else 8,
    "loop": {"steps": steps, "save_every": 2 if test else 20},
  }


def evaluate(
  students: list[str],
  problems: dict[str, Any],
  test: bool,
  stages: list[tuple[int, int, int]],
) -> dict[str, Any]:
  """All students, from the checkpoint on, at the longest length."""
  suite = {"prefix": "", "problems": problems, "count": 4 if test else 1319}
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [suite | {"new_tokens": max(new for new, _, _ in stages)}],
    "samples": 2 if test else 16,
    "ks": [1, 2] if test else [1, 16],
    "pairs": [[students[-1], "base"]],
    "rows": 4 if test else 64,
  }


def _published(preset: str, context: int) -> dict[str, Any]:
  """A run over a checkpoint on eight devices."""
  usual = {"dtype": "bfloat16", "remat": "everything", "context": context}
  return {
    "model": {"preset": preset} | usual,
    "mesh": {"data": 1, "fsdp": 8, "tensor": 1, "context": 1},
  }


def _small(problems: dict[str, Any]) -> dict[str, Any]:
  """A run over a tiny student that a solver taught a little."""
  return {
    "tokenizer": "bytes",
    "model": {"preset": "tiny", "width": 32, "layers": 1},
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1, "context": 1},
    "annotate": {
      "stage": "experiments.stages.annotate",
      "problems": problems,
      "count": 64,
      "teacher": "research.teachers.solver",
    },
    "base": {
      "stage": "experiments.stages.distill",
      "corpora": [{"path": "{annotate}/traces.jsonl"}],
      "loss": {"name": "research.losses.supervised", "args": {}},
      "rows": 4,
      "length": 96,
      "shards": 1,
      "optimizer": {"learning_rate": 1e-3},
      "loop": {"steps": 4, "save_every": 4},
    },
  }
