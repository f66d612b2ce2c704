"""DeepScaleR: GRPO in stages of length, from a distilled student.

Hypothesis. A student that first reasons shortly and is given room later learns
            more for as many tokens than one that has all the room at once.
Command.  python -m experiments.run --workdir=runs/deepscaler \
            --config=experiments/configs/deepscaler.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B, on GSM8K in the place
          of its 40k problems of AIME, AMC, Omni-MATH and STILL.
Expected. Published: AIME24 28.8 -> 43.1, MATH-500 82.8 -> 87.8. Not run here.
          `:small` is measured, see
          experiments/results/reinforcement.md.
Cost.     `:small`: five minutes of a core; `:test`: half a minute.
Source.   Luo et al. 2025 (DeepScaleR, its scripts): 1e-6, k3 in the loss by
          1e-3, T = 0.6, 128 problems, minibatches of 64; 8 answers of 8,192
          tokens, then 16 of 16,384 and of 24,576, from steps 1,040 and 1,520.
          The length of the last stage is ours.
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
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "rollout": {"problems": 128, "temperature": 0.6},
    "minibatches": 2,
    "reference": "base",
  }


STAGES = [(8_192, 8, 1_040), (16_384, 16, 480), (24_576, 16, 200)]


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return _zero.recipe(arg, "r1_distill_qwen_1_5b", law, STAGES)
