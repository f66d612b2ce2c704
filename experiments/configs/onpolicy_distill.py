"""On-policy distillation: a student writes, a teacher marks each token.

Hypothesis. A student that has seen few traces gains more from a teacher's mark
            on each of its own tokens than it loses by writing badly; no reward
            is used.
Command.  python -m experiments.run --workdir=runs/onpolicy_distill \
            --config=experiments/configs/onpolicy_distill.py:small
          or, between checkpoints of one tokenizer, on GSM8K,
          python -m experiments.run --workdir=runs/onpolicy_distill \
            --config=experiments/configs/onpolicy_distill.py \
            --config.base.directory=DIR --config.teacher.directory=DIR \
            --config.data_dir=DIR
          such as an SFT of Qwen3-8B-Base, and Qwen3-32B; the sizes are
          experiments/configs/_judged.py's.
Expected. `:small`: student_minus_start excludes zero (one seed). Published:
          about 70 on AIME24 after 60 from SFT. Not run here.
Cost.     `:small`: about 5 minutes on 2 CPU cores.
Source.   Thinking Machines 2025: the sampled token's own log-ratio, discount 0,
          5e-5 (1e-4 with a LoRA of rank 128), 512 groups, about 100 steps, from
          SFT at 1e-4 (1e-3), 128 a batch, 3,000 steps, which is left to another
          run. The answers to a prompt, 4, and their length are ours.
"""

from ml_collections import ConfigDict

from experiments.configs import _judged

TASK = "research.tasks.multiplication"
LOSS = "research.losses.sampled_reverse_kl"


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
    "loss": {"name": LOSS, "args": {"block": 2048}},
    "optimizer": {"learning_rate": 1e-3, "warmup": 5},
    "loop": {"steps": steps, "save_every": 20},
  }


def published() -> ConfigDict:
  """The recipe between checkpoints."""
  student = {
    "share": {"rows": 0},
    "rollout": {"problems": 512, "group": 4, "rows": 256},
    "loss": {"name": LOSS, "args": {}},
    "optimizer": {"learning_rate": 5e-5, "schedule": "constant"},
    "microbatches": 8,
  }
  return _judged.recipe("", student, new_tokens=1024, length=2048, steps=100)


def small(test: bool) -> ConfigDict:
  """The recipe on products, with a teacher of its own."""
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


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return small(arg == "test") if arg in ("small", "test") else published()
