"""TinyZero: PPO with a critic, from a base model, on countdown.

Hypothesis. A base model learns to search and to check itself from one reward an
            answer, without groups: a critic is its baseline.
Command.  python -m experiments.run --workdir=runs/tinyzero \
            --config=experiments/configs/tinyzero.py \
            --config.base.directory=DIR
          from Qwen/Qwen2.5-3B.
Expected. Published: 0.5 B "fails to learn reasoning", 3 B works; curves alone.
          Not run here.
Cost.     `:small`: ten minutes of a core; `:test`: a minute.
Source.   Pan et al. 2025 (TinyZero, its scripts): PPO and GAE with gamma and
          lambda 1, one answer to each of 256 problems, minibatches of 64, actor
          1e-6 and critic 1e-5, k1 in the reward by 1e-3, entropy by 1e-3, clip
          0.2, answers of 1,024 tokens, 327,680 problems of three or four
          numbers, 15 epochs of them. What is well-formed but wrong earned 0.1
          there; here, as a wrong answer should, nothing.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero

STEPS = 15 * 327_680 // 256


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives, whatever the length."""
  del new_tokens
  return {
    "algorithm": {
      "name": "research.algorithms.ppo",
      "args": {"entropy": 1e-3},
    },
    "advantage": {"gamma": 1.0, "lam": 1.0, "beta": 1e-3},
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "critic": {"optimizer": {"learning_rate": 1e-5, "schedule": "constant"}},
    "rollout": {"problems": 256, "temperature": 1.0},
    "pool": 327_680,
    "minibatches": 4,
    "microbatches": 2,
    "reference": "base",
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  args = {"count": (3, 4), "largest": 99}
  of = lambda split: {"task": _zero.COUNTDOWN, "split": split, "args": args}
  source = _zero.Source(of("train"), of("test"), 1_024)
  return _zero.recipe(arg, "qwen2_5_3b", law, [(1_024, 1, STEPS)], source)
