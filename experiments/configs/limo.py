"""LIMO: fine-tuning on 817 traces.

Hypothesis. Less is more: few traces of high quality, seen many times.
Command.  python -m experiments.run --workdir=runs/limo \
            --config=experiments/configs/limo.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-32B-Instruct and the rows of GAIR/LIMO as JSONL,
          `question` as `prompt` and `solution` as `completion`; see
          experiments/configs/_sft.py.
Expected. Published: AIME24 57.1 and MATH-500 94.8 (first version of the paper;
          63.3 and 95.6 in the third). Not run here. `:test` only shows that
          every stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   Ye et al. 2025 (2502.03387): 15 epochs at 5e-6, as recalled and not
          checked against the paper; batch 64 and the cosine are ours.
"""

from ml_collections import ConfigDict

from experiments.configs import _sft


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  return _sft.recipe(
    arg,
    {"preset": "qwen2_5_32b"},
    {"learning_rate": 5e-6, "schedule": "cosine"},
    batch=64,
    length=16_384,
    steps=192,
  )
