"""SimpleRL-Zoo: GRPO on many base models, from 8,000 problems.

Hypothesis. Small base models too gain from rules alone: published, on GSM8K,
            36.7 -> 49.5 at 0.5 B and 55.7 -> 74.4 at 1.5 B.
Command.  python -m experiments.run --workdir=runs/simplerl \
            --config=experiments/configs/simplerl.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-0.5B, on GSM8K (the source adds as much of MATH).
Expected. pass@1 of the student near 0.495. Not run here. `:test` only shows
          that every stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   Zeng et al. 2025 (2503.18892, its scripts): 1,024 problems with 8
          answers each, k3 in the loss by 1e-4, entropy by 1e-3, 8,192 tokens,
          about 100 steps. Minibatches of 256 problems and 1e-6 are as recalled.
"""

from ml_collections import ConfigDict

from experiments.configs import _zero

STUDENT = {
  "algorithm": {
    "name": "research.algorithms.grpo",
    "args": {"aggregate": "sequence", "beta": 1e-4, "entropy": 1e-3},
  },
  "advantage": {},
  "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
  "rollout": {"problems": 1024, "temperature": 1.0},
  "minibatches": 4,
  "reference": True,
}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  return _zero.recipe(arg, "qwen2_5_0_5b", STUDENT, [(8_192, 8, 100)])
