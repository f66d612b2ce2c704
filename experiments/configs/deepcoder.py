"""DeepCoder: GRPO+ on programs that tests judge, in stages of length.

Hypothesis. With clip-higher, no KL and truncated answers masked, a distilled
            student goes on learning from tests, and from more room later.
Command.  python -m experiments.run --workdir=runs/deepcoder \
            --config=experiments/configs/deepcoder.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from deepseek-ai/DeepSeek-R1-Distill-Qwen-14B, on MBPP in the place of
          its 24k problems of TACO, SYNTHETIC-1 and LiveCodeBench; evaluated on
          HumanEval. Answers run in a sandbox of bubblewrap.
Expected. Published: LiveCodeBench 60.6. Not run here.
Cost.     `:small`, on countdown: five minutes of a core; `:test`: a minute.
Source.   Luo et al. 2025 (DeepCoder, its scripts): clip 0.2 and 0.28, no KL, no
          entropy bonus, what is cut off is masked, 8 answers each, 16,384 then
          32,768 tokens. 1e-6, T = 1, 64 problems and the numbers of steps are
          ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _zero

STAGES = [(16_384, 8, 180), (32_768, 8, 80)]


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives, whatever the length."""
  del new_tokens
  return {
    "algorithm": {
      "name": "research.algorithms.grpo",
      "args": {"clip_low": 0.2, "clip_high": 0.28},
    },
    "advantage": {},
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "rollout": {"problems": 64, "temperature": 1.0, "truncated": "masked"},
    "pool": 374,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  mbpp = {"task": "research.tasks.mbpp", "split": "train"}
  humaneval = {"task": "research.tasks.humaneval", "split": "test"}
  source = _zero.Source(mbpp, humaneval, 164)
  return _zero.recipe(arg, "r1_distill_qwen_14b", law, STAGES, source)
