"""A student that writes and a larger teacher that judges: what recipes share.

On disk are two checkpoints of one tokenizer, `config.base.directory` and
`config.teacher.directory`, and under `config.data_dir` GSM8K's files. `:test`
needs none of them: both students come from a solver's traces.
"""

from typing import Any

from ml_collections import ConfigDict

CHAIN = "research.tasks.chain"
GSM8K = "research.tasks.gsm8k"
ANSWERS = {"path": "{annotate}/traces.jsonl"}


def annotate(problems: dict[str, Any], count: int) -> dict[str, Any]:
  """The written text: what a solver, or GSM8K's authors, wrote."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems,
    "count": count,
    "teacher": "research.teachers.solver",
  }


def _distill(steps: int) -> dict[str, Any]:
  return {
    "stage": "experiments.stages.distill",
    "corpora": [ANSWERS],
    "loss": {"name": "research.losses.supervised", "args": {}},
    "rows": 4,
    "length": 96,
    "shards": 1,
    "optimizer": {"learning_rate": 1e-3},
    "loop": {"steps": steps, "save_every": 4},
  }


def _checkpoint() -> ConfigDict:
  return ConfigDict({"stage": "experiments.stages.checkpoint", "directory": ""})


def evaluate(problems: dict[str, Any], test: bool, new_tokens: int):
  """The student beside what it was."""
  suite = {"prefix": "", "problems": problems, "new_tokens": new_tokens}
  return {
    "stage": "experiments.stages.evaluate",
    "students": ["base", "student"],
    "suites": [suite | {"count": 4 if test else 1319}],
    "samples": 1 if test else 4,
    "ks": [1],
    "pairs": [["student", "base"]],
    "rows": 4 if test else 64,
  }


def _pair(arg: str, length: int) -> ConfigDict:
  """A run with the stages `base` and `teacher`, without any other yet."""
  config = ConfigDict({"seed": 0, "data_dir": ""})  # or PITH_DATA
  if arg == "test":
    config.tokenizer = "bytes"
    config.model = {"preset": "tiny", "width": 32, "layers": 1}
    config.base, config.teacher = _distill(2), _distill(4)
  else:
    config.base, config.teacher = _checkpoint(), _checkpoint()
    config.tokenizer = config.base.get_ref("directory")
    config.model = {"preset": "qwen2_5_0_5b", "context": length}
  devices = 1 if arg == "test" else 8
  config.mesh = {"data": 1, "fsdp": devices, "tensor": 1, "context": 1}
  return config


def recipe(
  arg: str, student: dict[str, Any], *, new_tokens: int, length: int, steps: int
) -> ConfigDict:
  """Returns base, teacher -> student -> evaluation; "test" takes seconds.

  `student` has the fields of experiments.stages.on_policy that a source gives.
  """
  test = arg == "test"
  if test:
    new_tokens, length, steps = 32, 96, 4
  config = _pair(arg, length)
  args = {"args": ConfigDict({"data_dir": config.get_ref("data_dir")})}
  task = {"task": CHAIN} if test else {"task": GSM8K} | args
  train, held_out = task | {"split": "train"}, task | {"split": "test"}
  config.annotate = annotate(train, 64 if test else 7473)
  written = student["share"]["rows"] > 0
  domain = {
    "teacher": "teacher",
    "problems": train,
    "pool": 64 if test else 7473,
    "corpora": [ANSWERS] if written else [],
  }
  config.student = student | {
    "stage": "experiments.stages.on_policy",
    "start": "base",
    "domains": [domain],
    "rollout": student["rollout"]
    | {"new_tokens": new_tokens, "length": length},
    "loop": {"steps": steps, "save_every": 100},
  }
  config.evaluate = evaluate(held_out, test, new_tokens)
  config.stages = ("annotate", "base", "teacher", "student", "evaluate")
  return config
