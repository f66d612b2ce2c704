"""A run over all stages in seconds: what the tests of experiments/ run.

`get_config("distil")` ends after one training stage.
"""

from ml_collections import ConfigDict


def problems(split, task="research.tasks.chain"):
  return {"task": task, "split": split, "args": {"lengths": (2, 3)}}


def optimizer(rate):
  return {
    "learning_rate": rate,
    "warmup": 2,
    "schedule": "cosine",
    "floor": 0.1,
    "weight_decay": 0.01,
    "b1": 0.9,
    "b2": 0.95,
    "eps": 1e-8,
    "clip": 1.0,
  }


def annotate():
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems("train"),
    "count": 64,
    "teacher": "research.teachers.solver",
  }


def corpus(name, weight):
  return {
    "path": f"{{annotate}}/{name}.jsonl",
    "weight": weight,
    "scale": 1.5,
    "per": "token",
  }


def distil(name, steps):
  return {
    "stage": "experiments.stages.distill",
    "corpora": (corpus(name, 3.0), corpus("answers", 1.0)),
    "loss": {"name": "research.losses.supervised", "args": {"block": 256}},
    "rows": 8,
    "length": 64,
    "shards": 2,
    "optimizer": optimizer(1e-2),
    "loop": {"steps": steps, "save_every": 5, "keep": 2, "best": None},
    "microbatches": 1,
    "start": None,
    "teacher": None,
  }


def rollout():
  return {
    "problems": 2,
    "group": 4,
    "new_tokens": 16,
    "length": 64,
    "rows": 8,
    "temperature": 1.0,
  }


def reinforce(start):
  return {
    "stage": "experiments.stages.reinforce",
    "start": start,
    "problems": problems("train", "tests.experiments.parity"),
    "pool": 16,
    "rollout": rollout(),
    "algorithm": {
      "name": "research.algorithms.grpo",
      "args": {"clip_low": 0.2, "clip_high": 0.3, "aggregate": "token"},
    },
    "advantage": {"normalize": True, "delta": 1e-4},
    "optimizer": optimizer(1e-3),
    "loop": {"steps": 6, "save_every": 2, "keep": 2, "best": None},
    "microbatches": 1,
  }


def on_policy(start, teacher):
  return {
    "stage": "experiments.stages.on_policy",
    "start": start,
    "domains": tuple(
      {
        "teacher": name,
        "problems": problems("train"),
        "pool": 16,
        "weight": weight,
        "corpora": (corpus("traces", 1.0), corpus("answers", 2.0)),
      }
      for name, weight in ((teacher, 3.0), ("reinforced", 1.0))
    ),
    "share": {
      "first": 0.9,
      "last": 0.4,
      "rows": 8,
      "shards": 2,
      "loss": {"name": "research.losses.supervised", "args": {"block": 256}},
    },
    "rollout": rollout(),
    "loss": {"name": "research.losses.reverse_kl", "args": {"block": 256}},
    "optimizer": optimizer(1e-3),
    "loop": {"steps": 12, "save_every": 2, "keep": 2, "best": None},
    "microbatches": 1,
    "lora": {
      "rank": 2,
      "alpha": 4.0,
      "targets": ("q", "o", "down"),
      "rslora": False,
    },
    "base_bits": 8,
    "teacher_bits": 4,
  }


def climb():
  level = {
    "corpora": (corpus("traces", 1.0), corpus("answers", 2.0)),
    "problems": problems("train"),
  }
  probe = {"every": 2, "count": 4, "new_tokens": 16, "passed": 0.5}
  usual = distil("traces", 12)
  del usual["corpora"], usual["teacher"]
  return usual | {
    "stage": "experiments.stages.curriculum",
    "levels": (level, level),
    "probe": probe | {"patience": 4, "temperature": 1.0},
    "review": 0.25,
  }


def suite(prefix, split):
  return {
    "prefix": prefix,
    "problems": problems(split),
    "count": 4,
    "new_tokens": 16,
  }


def evaluate(*students):
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": (suite("", "test"), suite("hard/", "ood")),
    "samples": 2,
    "ks": (2,),
    "pairs": ((students[-1], students[0]),),
    "rows": 8,
    "temperature": 1.0,
    "top_p": 1.0,
  }


def get_config(arg=""):
  c = ConfigDict()
  c.seed = 0
  c.tokenizer = "bytes"
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  c.model = {
    "preset": "tiny",
    "width": 32,
    "layers": 1,
    "head_dim": 8,
    "mlp": 64,
    "context": 96,
  }
  c.annotate = annotate()
  c.distilled = distil("traces", 24)
  if arg == "distil":
    c.stages = ("annotate", "distilled")
    return c
  c.answer_only = distil("answers", 12)
  c.reinforced = reinforce("distilled")
  c.polished = on_policy("answer_only", "distilled")
  c.climbed = climb()
  c.evaluate = evaluate("answer_only", "reinforced", "polished")
  training = ("answer_only", "distilled", "reinforced", "polished", "climbed")
  c.stages = ("annotate", *training, "evaluate")
  return c
