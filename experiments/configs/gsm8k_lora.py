"""A LoRA over an int8 base, on GSM8K's worked answers.

Hypothesis. Adapters over a base that is frozen in int8 go on where a student
            broke off: the held-out loss falls, and merged into the base they
            are an ordinary student.
Command.  python -m experiments.run --config=experiments/configs/gsm8k_lora.py \
            --workdir=runs/gsm8k_lora --config.data_dir=DIR
          DIR holds gsm8k/train.jsonl and gsm8k/test.jsonl, from
          openai/grade-school-math.
Expected. 2.474 nats a held-out byte before, 2.170 after; the paired difference
            is -0.304 [-0.308, -0.300] over 1,319 problems, one seed. `:test`:
            3.19, 3.07 and -0.125 [-0.141, -0.109] over 32.
Cost.     `:test` takes a minute of one CPU core, all of it some 15.
Source.   Hu et al. 2021 (2106.09685); Dettmers et al. 2023 (2305.14314).
"""

from ml_collections import ConfigDict

TASK = "research.tasks.gsm8k"


def annotate(split, count, args):
  """Worked answers and bare ones, of a split."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": {"task": TASK, "split": split, "args": args},
    "count": count,
    "teacher": "research.teachers.solver",
  }


def distill(corpus, rate, steps, length, rows):
  """A student on a corpus of the training split."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": f"{{annotate}}/{corpus}.jsonl"}],
    "loss": {"name": "research.losses.supervised", "args": {}},
    "rows": rows,
    "length": length,
    "shards": 4,
    "optimizer": {"learning_rate": rate, "warmup": 10, "floor": 0.1},
    "loop": {"steps": steps, "save_every": 100},
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds, on the real files."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.data_dir = ""  # or the environment variable PITH_DATA
  config.tokenizer = "bytes"
  width, layers, context = (64, 2, 1536) if test else (128, 3, 2048)
  shape = {"width": width, "layers": layers, "context": context}
  config.model = {"preset": "tiny", **shape}  # Qwen3's layer, small
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  args = ConfigDict({"data_dir": config.get_ref("data_dir")})
  config.annotate = annotate("train", 256 if test else 7473, args)
  config.heldout = annotate("test", 32 if test else 1319, args)
  rows = (512, 4) if test else (1024, 8)
  config.base = distill("traces", 2e-3, 30 if test else 60, *rows)
  config.adapted = distill("traces", 1e-2, 30 if test else 150, *rows) | {
    "start": "base",
    "lora": {"rank": 8, "alpha": 16.0},
    "base_bits": 8,
  }
  config.score = {
    "stage": "experiments.stages.score",
    "students": ["base", "adapted"],
    "corpus": "{heldout}/traces.jsonl",
    "rows": 8 if test else 16,
    "length": 1536 if test else 2048,
    "pairs": [["adapted", "base"]],
  }
  config.stages = ("annotate", "heldout", "base", "adapted", "score")
  return config
