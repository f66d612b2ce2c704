"""DAPO: clip-higher, dynamic sampling, token means, overlong answers.

Hypothesis. Each of the four lifts GRPO from a base model; together they took
            AIME24 from 30 to 50.
Command.  python -m experiments.run --workdir=runs/dapo \
            --config=experiments/configs/dapo.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-32B, on GSM8K in the place of DAPO-Math-17k.
Expected. Published: AIME24 50. Not run here.
Cost.     `:small`: five minutes of a core; `:test`: half a minute.
Source.   Yu et al. 2025 (2503.14476) and its script in verl: 1e-6 after 10
          steps, decay 0.1, clip 0.2 and 0.28, no KL; 512 problems with 16
          answers each, minibatches of 32 problems, 10 refills at most; answers
          of 20,480 tokens, the last 4,096 of them punished. A refill is of as
          many problems as a step (the script draws 1,536 at once), and the
          number of steps is ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero

LENGTH = 20_480


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives at a length."""
  return {
    "algorithm": {
      "name": "research.algorithms.dapo",
      "args": {"clip_low": 0.2, "clip_high": 0.28},
    },
    "advantage": {
      "limit": new_tokens,
      "buffer": new_tokens // 5,
      "penalty": 1.0,
    },
    "optimizer": {
      "learning_rate": 1e-6,
      "warmup": 10,
      "schedule": "constant",
      "weight_decay": 0.1,
    },
    "rollout": {"problems": 512, "temperature": 1.0, "refills": 10},
    "minibatches": 16,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return _zero.recipe(arg, "qwen2_5_32b", law, [(LENGTH, 16, 320)])
