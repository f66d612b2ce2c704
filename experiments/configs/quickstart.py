"""Draft."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
  """Draft."""
  c = ConfigDict()
  c.seed = 0
  c.tokenizer = "bytes"
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  c.model = {"preset": "tiny", "context": 192}
  c.stages = (
    "annotate",
    "annotate_hard",
    "answer_only",
    "distilled",
    "reinforced",
    "evaluate",
  )
  task = "research.tasks.multiplication"
  easy, hard = ((3, 1), (4, 1)), ((5, 1), (6, 1))
  train = lambda d: {"task": task, "split": "train", "args": {"digits": d}}
  note = lambda d, n: {
    "stage": "experiments.stages.annotate",
    "problems": train(d),
    "count": n,
    "teacher": "research.teachers.solver",
  }
  c.annotate = note(easy, 20000)
  c.annotate_hard = note(hard, 8000)
  steps = 600
  base = lambda: {
    "stage": "experiments.stages.distill",
    "loss": {"name": "research.losses.supervised", "args": {"block": 8192}},
    "rows": 16,
    "length": 128,
    "shards": 4,
    "optimizer": {
      "learning_rate": 3e-3,
      "steps": steps,
      "warmup": 20,
      "floor": 0.05,
    },
    "loop": {"steps": steps, "save_every": 200},
  }
  c.answer_only = base() | {
    "corpora": (
      {"path": "{annotate}/answers.jsonl", "weight": 7.0},
      {"path": "{annotate_hard}/answers.jsonl", "weight": 3.0},
    )
  }
  c.distilled = base() | {
    "corpora": (
      {"path": "{annotate}/traces.jsonl", "weight": 7.0},
      {"path": "{annotate_hard}/traces.jsonl", "weight": 1.5},
      {"path": "{annotate_hard}/answers.jsonl", "weight": 1.5},
    )
  }
  c.reinforced = {
    "stage": "experiments.stages.reinforce",
    "start": "distilled",
    "problems": train(hard),
    "pool": 4000,
    "rollout": {
      "problems": 32,
      "group": 8,
      "new_tokens": 96,
      "length": 128,
      "rows": 256,
    },
    "algorithm": {"name": "research.algorithms.grpo", "args": {}},
    "advantage": {},
    "optimizer": {"learning_rate": 3e-4, "steps": 100, "schedule": "constant"},
    "loop": {"steps": 30, "save_every": 10},
  }
  suite = lambda p, d: {
    "prefix": p,
    "problems": {"task": task, "split": "test", "args": {"digits": d}},
    "count": 512,
    "new_tokens": 96,
  }
  c.evaluate = {
    "stage": "experiments.stages.evaluate",
    "students": ("answer_only", "distilled", "reinforced"),
    "suites": (suite("", easy), suite("hard/", hard)),
    "samples": 8,
    "ks": (1, 2, 4, 8),
    "pairs": (("reinforced", "distilled"),),
    "rows": 512,
  }
  return c
