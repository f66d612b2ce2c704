"""PRIME: process rewards of a model that only outcomes teach.

Hypothesis. A reward for each token, out of a model trained beside the policy on
            nothing but right and wrong, learns faster than the outcome alone.
Command.  python -m experiments.run --workdir=runs/prime \
            --config=experiments/configs/prime.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from PRIME-RL/Eurus-2-7B-SFT, on GSM8K in the place of its own data.
Expected. Published: AIME24 3.3 -> 26.7, MATH-500 79.2. Not run here.
Cost.     `:small`: ten minutes of a core; `:test`: a minute.
Source.   Cui et al. 2025 (2502.01456): RLOO on process and outcome rewards,
          beta 0.05, policy 5e-7 and reward model 1e-6, 4 answers each to 256
          problems, 3,072 tokens, of problems with accuracy in 0.2 to 0.8. Its
          reward model is updated before it judges a rollout; here after, which
          the source found as good. Its code also divides process rewards by the
          largest of a batch, and whitens advantages; that is not here. Four
          refills at most is ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero

LENGTH = 3_072


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives, whatever the length."""
  del new_tokens
  return {
    "algorithm": {"name": "research.algorithms.prime", "args": {}},
    "advantage": {},
    "optimizer": {"learning_rate": 5e-7, "schedule": "constant"},
    "process": {
      "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
      "args": {"beta": 0.05},
    },
    "rollout": {"problems": 256, "temperature": 1.0}
    | {"refills": 4, "between": (0.2, 0.8)},
    "reference": "base",
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return _zero.recipe(arg, "qwen2_5_math_7b", law, [(LENGTH, 4, 240)])
