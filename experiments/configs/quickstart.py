"""Draft."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
  c = ConfigDict()
  c.seed = 0
  c.tokenizer = "bytes"
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  c.model = {"preset": "tiny", "context": 192}
  c.stages = ("annotate", "answer_only", "distilled", "reinforced", "evaluate")
  chain = "research.tasks.chain"
  c.annotate = {"stage": "experiments.stages.annotate", "problems": {"task": chain, "split": "train", "args": {"lengths": (2, 8)}}, "count": 4000, "teacher": "research.teachers.solver"}
  opt = {"learning_rate": 3e-3, "steps": 100, "warmup": 10}
  loss = {"name": "research.losses.supervised", "args": {"block": 8192}}
  base = {"stage": "experiments.stages.distill", "loss": loss, "rows": 32, "length": 128, "shards": 4, "optimizer": opt, "loop": {"steps": 20, "save_every": 10}}
  c.answer_only = base | {"corpora": ({"path": "{annotate}/answers.jsonl"},)}
  c.distilled = base | {"corpora": ({"path": "{annotate}/traces.jsonl"},)}
  c.reinforced = {"stage": "experiments.stages.reinforce", "start": "distilled", "problems": {"task": chain, "split": "train", "args": {"lengths": (6, 9)}}, "pool": 500, "rollout": {"problems": 8, "group": 4, "new_tokens": 64, "length": 128, "rows": 32}, "algorithm": {"name": "research.algorithms.grpo", "args": {}}, "advantage": {}, "optimizer": {"learning_rate": 3e-4, "steps": 100, "schedule": "constant"}, "loop": {"steps": 3, "save_every": 2}}
  suite = lambda p, s: {"prefix": p, "problems": {"task": chain, "split": s}, "count": 20, "new_tokens": 64}
  c.evaluate = {"stage": "experiments.stages.evaluate", "students": ("answer_only", "distilled", "reinforced"), "suites": (suite("", "test"), suite("hard/", "ood")), "samples": 8, "ks": (1, 8), "pairs": (("reinforced", "distilled"),), "rows": 160}
  return c
