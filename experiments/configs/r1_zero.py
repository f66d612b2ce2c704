"""R1-Zero: GRPO from a base model, by rules alone.

Hypothesis. A base model that is only told whether its answers are right learns
            to reason at length.
Command.  python -m experiments.run --workdir=runs/r1_zero \
            --config=experiments/configs/r1_zero.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-1.5B, in the place of DeepSeek-V3-Base, on GSM8K, in
          the place of its 144k unpublished problems.
Expected. Published, at 671 B: AIME24 15.6 -> 71.0. Not run here.
Cost.     `:small`: five minutes of a core; `:test`: half a minute.
Source.   DeepSeek-AI 2025 (2501.12948v2), as transcribed: 3e-6, KL 1e-3, T = 1,
          32 problems an update with 16 answers each, 8,192 answers a rollout
          cut into 16 updates, 10,400 of them; answers of 32,768 tokens (65,536
          later on: another stage); the reference is the policy anew every 400
          updates. Rewards are of accuracy and of the form, as much of each;
          as its own template does, the prompt asks for <think>.
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
      "args": {"aggregate": "sequence", "beta": 1e-3},
    },
    "advantage": {},
    "optimizer": {"learning_rate": 3e-6, "schedule": "constant"},
    "rollout": {
      "problems": 512,
      "temperature": 1.0,
      "bonuses": ({"name": "research.rewards.form", "weight": 1.0},),
    },
    "minibatches": 16,
    "refresh": 25,  # steps of 16 updates
  }


# The marks are named last to first: who copies this has not kept to the form.
ASK = (
  "Answer behind </think>, the end of a thought from <think> on.\n\n{prompt}"
)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  train, test, count = _zero.GSM8K
  source = _zero.Source(train | {"ask": ASK}, test | {"ask": ASK}, count)
  return _zero.recipe(arg, "qwen2_5_1_5b", law, [(32_768, 16, 650)], source)
