"""A multiplication teacher of 5 M parameters, for other runs to learn from.

Hypothesis. A 5 M decoder trained on worked products of a three- and a two-digit
            number is right on more than 0.95 of those that it has not seen.
Command.  python -m experiments.run --workdir=runs/multiplication_teacher \
            --config=experiments/configs/multiplication_teacher.py
Expected. teacher/pass@1 0.985 [0.977, 0.993], n = 512. One seed: it is the
          one teacher of experiments/ablations, whose seeds are the students'.
Cost.     About 12 minutes of one CPU core.
Source.   Scratchpads: Nye et al. 2021 (2112.00114).
"""

from ml_collections import ConfigDict

TASK = "research.tasks.multiplication"
LENGTH, NEW_TOKENS = 144, 136  # the longest product, and its answer


def products(digits, split):
  """Products of numbers of so many digits."""
  return {"task": TASK, "split": split, "args": {"digits": (digits,)}}


def problems(split):
  """Products of a three-digit and a two-digit number."""
  return products((3, 2), split)


def distill(test):
  """The teacher on worked products."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": "{annotate}/traces.jsonl"}],
    "loss": {"name": "research.losses.supervised", "args": {"block": 2048}},
    "rows": 4 if test else 16,
    "length": LENGTH,
    "shards": 2,
    "optimizer": {"learning_rate": 1.5e-3, "warmup": 50, "floor": 0.05},
    "loop": {"steps": 4 if test else 500, "save_every": 100},
  }


def evaluate(test):
  """The teacher on products that it has not seen."""
  suite = {"prefix": "", "problems": problems("test")}
  suite |= {"count": 8 if test else 512, "new_tokens": NEW_TOKENS}
  return {
    "stage": "experiments.stages.evaluate",
    "students": ["teacher"],
    "suites": [suite],
    "samples": 1 if test else 2,
    "ks": [1],
    "pairs": [],
    "rows": 8 if test else 256,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.tokenizer = "bytes"
  sizes = {"width": 256, "layers": 6, "groups": 4, "mlp": 768}
  sizes = {"width": 32, "layers": 1} if test else sizes
  config.model = {"preset": "tiny", **sizes}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  config.annotate = {
    "stage": "experiments.stages.annotate",
    "problems": problems("train"),
    "count": 64 if test else 30_000,
    "teacher": "research.teachers.solver",
  }
  config.teacher = distill(test)
  config.evaluate = evaluate(test)
  config.export = {
    "stage": "experiments.stages.export",
    "student": "teacher",
    "dtype": "float32",
  }
  config.stages = ("annotate", "teacher", "evaluate", "export")
  return config
