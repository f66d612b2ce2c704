"""On-policy distillation: a student writes, a trained teacher marks each token.

Hypothesis. A student that has seen few traces gains more from a teacher's
whole distribution on its own answers than it loses by writing badly; no reward
is used.

Command.  python -m experiments.run --workdir=runs/onpolicy_distill \
            --config=experiments/configs/onpolicy_distill.py
Expected. student_minus_start excludes zero (one seed of a 5-minute run).
Cost.     About 5 minutes on 2 CPU cores.
Source.   Reverse KL with discount 0: Thinking Machines 2025; MiniLLM
          (2306.08543), GKD (2306.13649). There: SFT at 1e-4 (1e-3 with a LoRA
          of rank 128), 128 a batch, 3,000 steps; then 5e-5 (1e-4), 512 groups,
          about 100 steps, the sampled token's own log-ratio. Here everything
          is small, and the KL is exact over the vocabulary.
"""

from ml_collections import ConfigDict

TASK = "research.tasks.multiplication"


def problems(split):
  """Products of a three- or four-digit number and one digit."""
  digits = ((3, 1), (4, 1))
  return {"task": TASK, "split": split, "args": {"digits": digits}}


def distill(steps):
  """A model on the solver's traces; the teacher reads more of them."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": "{annotate}/traces.jsonl"}],
    "loss": {"name": "research.losses.supervised", "args": {"block": 2048}},
    "rows": 16,
    "length": 128,
    "shards": 4,
    "optimizer": {"learning_rate": 3e-3, "warmup": 20},
    "loop": {"steps": steps, "save_every": 200},
  }


def on_policy(steps):
  """The student's own answers under the teacher's reverse KL."""
  return {
    "stage": "experiments.stages.on_policy",
    "start": "start",
    "domains": [
      {"teacher": "teacher", "problems": problems("train"), "pool": 2000}
    ],
    "rollout": {
      "problems": 64,
      "group": 1,
      "new_tokens": 80,
      "length": 128,
      "rows": 64,
    },
    "loss": {"name": "research.losses.reverse_kl", "args": {"block": 2048}},
    "optimizer": {"learning_rate": 1e-3, "warmup": 5},
    "loop": {"steps": steps, "save_every": 20},
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.tokenizer = "bytes"
  width, layers = (32, 1) if test else (128, 3)
  config.model = {"preset": "tiny", "width": width, "layers": layers}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  config.annotate = {
    "stage": "experiments.stages.annotate",
    "problems": problems("train"),
    "count": 64 if test else 20_000,
    "teacher": "research.teachers.solver",
  }
  config.teacher = distill(4 if test else 600)
  config.start = distill(2 if test else 200)
  config.student = on_policy(2 if test else 60)
  if test:
    config.update({"student": {"rollout": {"problems": 4, "rows": 4}}})
  students = ("teacher", "start", "student")
  config.evaluate = {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [
      {
        "prefix": "",
        "problems": problems("test"),
        "count": 8 if test else 512,
        "new_tokens": 80,
      }
    ],
    "samples": 1 if test else 4,
    "ks": [1],
    "pairs": [("student", "start")],
    "rows": 8 if test else 256,
  }
  config.stages = ("annotate", *students, "evaluate")
  return config
