"""SciGLM: wrong solutions are checked and revised before anyone learns them.

Hypothesis. A teacher that is told to check its own wrong solutions mends many
            of them, so that hard problems are not left out of what is learned.
Command.  python -m experiments.run --workdir=runs/sciglm \
            --config=experiments/configs/sciglm.py \
            --config.base.directory=DIR --config.data_dir=DIR \
            --config.annotate.args.url=URL --config.annotate.args.model=NAME \
            --config.annotate.critic.args.url=URL \
            --config.annotate.critic.args.model=NAME
          with an OpenAI-compatible teacher, its key in OPENAI_API_KEY; see
          experiments/configs/_sft.py. Requests, their cost (with
          --config.annotate.args.prompt_price and completion_price) and every
          gate's counts are in DIR/annotate.
Expected. Published, over ChatGLM3-6B: +4.87 on scientific and mathematical
          benchmarks on average. Not run here: no teacher of that size is at
          hand. `:test`, which asks no teacher, shows that the other gates and
          stages run.
Cost.     `:test`: half a minute of one CPU core.
Source.   Zhang et al. 2024 (2401.07950): 3e-6, linear, 2 epochs, lengths 128
          and 512; rows here are as long as both. Two rounds of revision, the
          batch and the base are ours.
"""

from ml_collections import ConfigDict

from experiments.configs import _sft

ENDPOINT = {"url": "", "model": "", "max_tokens": 512, "concurrency": 16}
CRITIQUE = "research.annotation.critique"
GATES = [
  {"name": "research.annotation.format"},
  {"name": "research.annotation.near_duplicates"},
  {"name": "research.annotation.decontaminate"},
]


def annotate(problems, folder):
  """GSM8K's questions, answered anew, checked and revised."""
  asked = {"problems": {"task": _sft.GSM8K, "split": "test"}, "count": 1319}
  asked["problems"] |= {"args": problems["args"]}
  book = lambda name: ENDPOINT | {"ledger": f"{folder}/{name}.jsonl"}
  teacher = "research.teachers.endpoint"
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems | {"split": "train"},
    "count": 7473,
    "teacher": teacher,
    "args": book("teacher"),
    "critic": {"name": teacher, "args": book("critic")},
    "gates": [
      {"name": CRITIQUE, "args": {"rounds": 2, "reveal": True}},
      *GATES,
    ],
    "held_out": [asked],
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  config = _sft.recipe(
    arg,
    {"preset": "qwen2_5_7b"},
    {"learning_rate": 3e-6, "schedule": "linear"},
    batch=64,
    length=1024,
    steps=234,
  )
  if arg == "test":
    asked = {"problems": {"task": _sft.CHAIN, "split": "test"}, "count": 4}
    told = {"gates": GATES, "held_out": [asked]}
    config.update({"annotate": told})
    return config
  args = ConfigDict({"data_dir": config.get_ref("data_dir")})
  config.annotate = annotate({"task": _sft.GSM8K, "args": args}, "{annotate}")
  corpora = [{"path": "{annotate}/traces.jsonl"}]
  config.update({"student": {"corpora": corpora}})
  del config.traces  # decontaminated where they are written
  config.stages = ("base", "annotate", "student", "evaluate")
  return config
