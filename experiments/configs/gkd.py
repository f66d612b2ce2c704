"""Generalised knowledge distillation: half of the text is the student's own.

Hypothesis. Judged on what it writes itself, a student learns to go on from its
            own mistakes, which it never meets in a teacher's text.
Command.  python -m experiments.run --workdir=runs/gkd \
            --config=experiments/configs/gkd.py \
            --config.base.directory=DIR --config.teacher.directory=DIR \
            --config.data_dir=DIR
          such as Qwen2.5-0.5B-Instruct and Qwen2.5-1.5B-Instruct; see
          experiments/configs/_judged.py.
Expected. No published number on GSM8K is of these sizes, and this was not run:
          `:test` only shows that every stage runs. On a small scale:
          experiments/results/distillation.md.
Cost.     `:test`: a minute of one CPU core.
Source.   Agarwal et al. 2024 (2306.13649); the values are TRL's defaults:
          lambda 0.5, beta 0.5, temperature 0.9, 128 new tokens. The learning
          rate, the batch and the steps are ours.
"""

from ml_collections import ConfigDict

from experiments.configs import _judged


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  test = arg == "test"
  batch = 4 if test else 64
  student = {
    "share": {"first": 0.5, "last": 0.5, "rows": batch, "shards": 1},
    "rollout": {
      "problems": batch,
      "group": 1,
      "rows": batch,
      "temperature": 0.9,
    },
    "loss": {"name": "research.losses.jsd", "args": {"beta": 0.5}},
    "optimizer": {"learning_rate": 2e-5, "schedule": "cosine"},
  }
  return _judged.recipe(arg, student, new_tokens=128, length=512, steps=1_000)
