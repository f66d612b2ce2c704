"""R1-Zero: GRPO from a base model, by rules alone.

Hypothesis. A base model that is only told whether its answers are right learns
            to reason at length.
Command.  python -m experiments.run --workdir=runs/r1_zero \
            --config=experiments/configs/r1_zero.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-1.5B, in the place of DeepSeek-V3-Base, on GSM8K, in
          the place of its 144k unpublished problems.
Expected. Published, at 671 B: AIME24 15.6 -> 71.0. Not run here. `:test` only
          shows that every stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   DeepSeek-AI 2025 (2501.12948v2), as transcribed: 3e-6, KL 1e-3, T = 1,
          32 problems an update with 16 answers each, 8,192 answers a rollout
          cut into 16 updates, 10,400 of them; answers of 32,768 tokens (65,536
          later on: another stage). Its reward is of the format too, and its
          reference the policy anew every 400 updates; here it is accuracy
          alone, and the base throughout.
"""

from ml_collections import ConfigDict

from experiments.configs import _zero

STUDENT = {
  "algorithm": {
    "name": "research.algorithms.grpo",
    "args": {"aggregate": "sequence", "beta": 1e-3},
  },
  "advantage": {},
  "optimizer": {"learning_rate": 3e-6, "schedule": "constant"},
  "rollout": {"problems": 512, "temperature": 1.0},
  "minibatches": 16,
  "reference": True,
}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  return _zero.recipe(arg, "qwen2_5_1_5b", STUDENT, [(32_768, 16, 650)])
