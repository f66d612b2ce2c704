"""SimpleRL-Zoo: GRPO on many base models, from 8,000 problems.

Hypothesis. Small base models too gain from rules alone: published, on GSM8K,
            36.7 -> 49.5 at 0.5 B and 55.7 -> 74.4 at 1.5 B.
Command.  python -m experiments.run --workdir=runs/simplerl \
            --config=experiments/configs/simplerl.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-0.5B, on GSM8K (the source adds as much of MATH).
Expected. pass@1 of the student near 0.495. Not run here.
Cost.     `:small`: five minutes of a core; `:test`: half a minute.
Source.   Zeng et al. 2025 (2503.18892, its scripts): 1,024 problems with 8
          answers each, k3 in the loss by 1e-4, entropy by 1e-3, 8,192 tokens,
          about 100 steps. Minibatches of 256 problems and 1e-6 are as recalled.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives, whatever the length."""
  del new_tokens
  return {
    "algorithm": {
      "name": "research.algorithms.grpo",
      "args": {"aggregate": "sequence", "beta": 1e-4, "entropy": 1e-3},
    },
    "advantage": {},
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "rollout": {"problems": 1024, "temperature": 1.0},
    "minibatches": 4,
    "reference": "base",
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return _zero.recipe(arg, "qwen2_5_0_5b", law, [(8_192, 8, 100)])
