"""Fine-tuning on GSM8K's worked answers, evaluated on its real test split.

Of each answer the calculations that its authors marked, `<<48/2=24>>`, and the
result are checked before it is read.

Hypothesis. None: this shows that the whole path runs on real files. A 0.6 M
byte-level student trained from scratch on 7,473 worked answers cannot solve
word problems, and the report says so.

Command.  python -m experiments.run --config=experiments/configs/gsm8k_sft.py \
            --workdir=runs/gsm8k_sft --config.data_dir=DIR
          DIR holds gsm8k/train.jsonl and gsm8k/test.jsonl, from
          openai/grade-school-math.
Expected. pass@1 of about 0.01 to 0.02, the rate of lucky small numbers.
Cost.     About 15 minutes on 2 CPU cores.
Source.   Cobbe et al. 2021 (2110.14168).
"""

from ml_collections import ConfigDict

TASK = "research.tasks.gsm8k"
GATES = ("arithmetic", "verify")


def distill(steps, length, rows):
  """The student on the worked answers."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": "{annotate}/traces.jsonl"}],
    "loss": {"name": "research.losses.supervised", "args": {}},
    "rows": rows,
    "length": length,
    "shards": 4,
    "optimizer": {
      "learning_rate": 2e-3,
      "warmup": 20,
      "floor": 0.1,
    },
    "loop": {"steps": steps, "save_every": 100},
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds, on the real files."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.data_dir = ""  # or the environment variable PITH_DATA
  config.tokenizer = "bytes"
  width, layers, context = (32, 1, 1536) if test else (128, 3, 2048)
  shape = {"width": width, "layers": layers, "context": context}
  config.model = {"preset": "tiny", **shape}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  args = ConfigDict({"data_dir": config.get_ref("data_dir")})
  problems = lambda split: {"task": TASK, "split": split, "args": args}
  marked = ConfigDict({"data_dir": config.get_ref("data_dir"), "marks": True})
  config.annotate = {
    "stage": "experiments.stages.annotate",
    "problems": problems("train") | {"args": marked},
    "count": 64 if test else 7473,
    "teacher": "research.teachers.solver",
    "gates": [{"name": f"research.annotation.{gate}"} for gate in GATES],
  }
  config.distilled = distill(*((4, 512, 4) if test else (1500, 1024, 8)))
  config.evaluate = {
    "stage": "experiments.stages.evaluate",
    "students": ["distilled"],
    "suites": [
      {
        "prefix": "",
        "problems": problems("test"),
        "count": 16 if test else 1319,
        "new_tokens": 64 if test else 384,
      }
    ],
    "samples": 1,
    "ks": [1],
    "pairs": [],
    "rows": 16 if test else 64,
  }
  config.stages = ("annotate", "distilled", "evaluate")
  return config
