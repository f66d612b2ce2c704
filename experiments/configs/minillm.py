"""MiniLLM: the reverse KL of whole answers, and language modelling beside it.

Hypothesis. A small student that seeks the teacher's modes writes better than
            one that spreads over all of them.
Command.  python -m experiments.run --workdir=runs/minillm \
            --config=experiments/configs/minillm.py \
            --config.base.directory=DIR --config.teacher.directory=DIR \
            --config.data_dir=DIR
          such as Qwen2.5-0.5B-Instruct and Qwen2.5-1.5B-Instruct; see
          experiments/configs/_judged.py.
Expected. Not run: `:test` only shows that every stage runs.
Cost.     `:test`: a minute of one CPU core.
Source.   Gu et al. 2024 (2306.08543) and microsoft/LMOps, its script for GPT-2:
          5e-6 constant, 5,000 iterations, length-normalised returns, the exact
          single step, language modelling with weight 0.5 (here: a third of
          7,500 steps). Otherwise than there: every answer is learned from once
          and not in four inner epochs, no token is drawn from the teacher (its
          alpha is 0.2), the reward is neither scaled by 0.5 nor clipped at 100,
          and what is modelled is GSM8K's own text and no pretraining corpus.
"""

from ml_collections import ConfigDict

from experiments.configs import _judged


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  batch = 4 if arg == "test" else 16
  plain = {"name": "research.losses.supervised", "args": {}}
  share = {"first": 2 / 3, "last": 2 / 3, "rows": batch, "shards": 1}
  student = {
    "share": share | {"loss": plain},
    "rollout": {"problems": batch, "group": 1, "rows": batch},
    "loss": {"name": "research.losses.minillm", "args": {"normalize": True}},
    "optimizer": {"learning_rate": 5e-6, "schedule": "constant"},
  }
  return _judged.recipe(arg, student, new_tokens=256, length=512, steps=7_500)
