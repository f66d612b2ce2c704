"""s1: fine-tuning on 1,000 traces, chosen by quality, difficulty, diversity.

Hypothesis. A thousand well-chosen traces are enough to wake what a 32B model
            has learned already.
Command.  python -m experiments.run --workdir=runs/s1 \
            --config=experiments/configs/s1.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-32B-Instruct and the rows of simplescaling/s1K as
          JSONL, the question as `prompt` and trace and answer as `completion`;
          see experiments/configs/_sft.py. To choose a thousand of
          one's own traces: the gate research.annotation.select.
Expected. Published: AIME24 50.0, MATH-500 92.6, GPQA-Diamond 56.6 without
          budget forcing. Not run here. `:test` only shows that every
          stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   Muennighoff et al. 2025 (2501.19393) and simplescaling/s1: 5 epochs,
          batch 16, cosine from 1e-5 to 0, 5 % of warm-up, weight decay 1e-4,
          betas 0.9 and 0.95, loss on the completion, blocks of 20,000
          (those of s1.1; the figures are s1's).
"""

from ml_collections import ConfigDict

from experiments.configs import _sft


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  rate = {"learning_rate": 1e-5, "schedule": "cosine", "warmup": 16}
  return _sft.recipe(
    arg,
    {"preset": "qwen2_5_32b"},
    rate | {"weight_decay": 1e-4, "b1": 0.9, "b2": 0.95},
    batch=16,
    length=20_000,
    steps=315,
  )
