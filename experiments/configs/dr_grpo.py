"""Dr.GRPO: no std, and one constant divisor for all lengths.

Hypothesis. Without the two biases wrong answers do not grow longer.
Command.  python -m experiments.run --workdir=runs/dr_grpo \
            --config=experiments/configs/dr_grpo.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-Math-7B, on GSM8K in the place of MATH's levels 3
          to 5.
Expected. Published: AIME24 43.3 in 27 hours on 8 A100. Not run here.
Cost.     `:small`: five minutes of a core; `:test`: half a minute.
Source.   Liu et al. 2025 (2503.20783): 1e-6, constant; beta 0, 8 answers each
          to 128 / 8 = 16 problems, T = 1, 3,000 tokens, and so the divisor.
          What is cut off earns nothing. The number of steps is ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero

LENGTH = 3_000


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives at a length."""
  return {
    "algorithm": {
      "name": "research.algorithms.dr_grpo",
      "args": {"length": new_tokens},
    },
    "advantage": {},
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "rollout": {"problems": 16, "temperature": 1.0, "truncated": "zero"},
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return _zero.recipe(arg, "qwen2_5_math_7b", law, [(LENGTH, 8, 500)])
