"""SCoRe: a student's first wrong step is mended, and reinforced from there.

Hypothesis. A student learns more from its own attempts, mended where they first
            go wrong, than from a teacher's; and more again when it is
            reinforced from its own right beginnings.
Command.  python -m experiments.run --workdir=runs/score \
            --config=experiments/configs/score.py:small
          or, from Qwen/Qwen2.5-7B on long products,
          python -m experiments.run --workdir=runs/score \
            --config=experiments/configs/score.py --config.base.directory=DIR
Expected. Published: at 7 B as good an agent as its teacher of 72 B, on twelve
          benchmarks. Not run here.
Cost.     `:small`: about 15 minutes of one CPU core; `:test`: one minute.
Source.   Lyu et al. 2025 (2509.14257). There the steps are an agent's, with a
          large model to find and mend the first that is wrong, after which the
          student goes on and may err again. Here they are the lines of a
          product, which the solver judges and, once wrong, ends: as there is
          one way to write a product, the mended attempts are the solver's own,
          at what the student fails. The numbers are ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair

NEXT_LINE = "experiments.configs._next_line"
# Steps. After 300 no attempt was right, after 400 one in ten; after 450 of
# experiments/ablations/signals.py from half to nine of ten.
TAUGHT, CORRECTED, REINFORCED = 450, 100, 40
ATTEMPTED, BEGUN = 1_000, 16  # products in all, beginnings a step
LINE = 64  # the bytes of the longest line
CONTEXT = 256  # a beginning, and the line behind it
ROOM = 512  # tokens, behind a published template


def attempts(count: int, test: bool, rows: int, new_tokens: int) -> dict:
  """What the taught student writes, hot; wrong or not, all of it is kept."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": _pair.problems("train"),
    "count": count,
    "samples": 1 if test else 2,
    "teacher": "research.teachers.checkpoint",
    "args": _pair.asked("exported", new_tokens, rows),
    "gates": (),
  }


def mend(count: int) -> dict[str, Any]:
  """The attempts mended, and answers begun with what is right of them."""
  return {
    "stage": "experiments.stages.mend",
    "problems": _pair.problems("train"),
    "count": count,
    "attempts": ("{attempts}/traces.jsonl",),
  }


def correct(corpora: dict[str, float], test: bool) -> dict[str, Any]:
  """The taught student on more texts, gently."""
  rest = {"start": "taught"}
  rest |= {"optimizer": {"learning_rate": 3e-4, "warmup": 10}}
  return _pair.distill(corpora, CORRECTED, test, **rest)


def reinforce(start: str, test: bool, **rest: Any) -> dict[str, Any]:
  """The student on the line behind its own right beginning."""
  asked = {"task": NEXT_LINE, "path": "{mended}/problems.jsonl"}
  rows = 8 if test else 128
  return {
    "stage": "experiments.stages.reinforce",
    "start": start,
    "problems": _pair.problems("train") | asked,
    "pool": 100_000,
    "rollout": {
      "problems": 2 if test else BEGUN,
      "group": 4 if test else 8,
      "new_tokens": LINE,
      "length": _pair.LENGTH + LINE,
      "rows": rows,
    },
    "algorithm": {"name": "research.algorithms.grpo", "args": {}},
    "advantage": {},
    "optimizer": {"learning_rate": 1e-4, "schedule": "constant"},
    "loop": {"steps": 2 if test else REINFORCED, "save_every": 20},
  } | rest


def stages(test: bool, count: int = ATTEMPTED) -> dict[str, dict[str, Any]]:
  """The student taught, corrected and reinforced, with its own attempts."""
  count = 8 if test else count
  new_tokens = 8 if test else _pair.NEW_TOKENS
  traces = "{%s}/traces.jsonl"
  return {
    "annotate": _pair.annotate(test),
    "taught": _pair.distill({traces % "annotate": 1.0}, TAUGHT, test),
    "exported": _pair.export("taught"),
    "attempts": attempts(count, test, 8 if test else 256, new_tokens),
    "mended": mend(count),
    "corrected": correct({traces % "mended": 1.0}, test),
    "student": reinforce("corrected", test),
    "evaluate": _pair.evaluate(
      test,
      ("taught", "corrected", "student"),
      (("corrected", "taught"), ("student", "corrected")),
      samples=4,
    ),
  }


def published(config: ConfigDict) -> None:
  """Makes a run over a checkpoint, on eight devices, of a small one."""
  model = {"preset": "qwen2_5_7b", "context": ROOM}
  config.model = model | {"dtype": "bfloat16", "remat": "everything"}
  stage = "experiments.stages.checkpoint"
  config.base = base = ConfigDict({"stage": stage, "directory": ""})
  config.tokenizer = base.get_ref("directory")
  learn = {"length": ROOM, "optimizer": {"learning_rate": 1e-5}}
  config.update(
    {
      "mesh": {"fsdp": 8},
      "taught": learn | {"start": "base"},
      "corrected": learn,
      "student": {
        "optimizer": {"learning_rate": 1e-6},
        "rollout": {"length": ROOM},
      },
    }
  )


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" is for two cores, "test" takes seconds."""
  config = _pair.base(arg, context=CONTEXT)
  found = stages(arg == "test")
  config.update(found)
  config.stages = tuple(found)
  if not arg:
    published(config)
    config.stages = ("base", *found)
  return config
