"""DeepSeek-R1-Distill-Qwen-1.5B: fine-tuning on 800,000 traces of R1.

Hypothesis. Traces of a large reasoning model, imitated without any
            reinforcement, make a 1.5B model reason.
Command.  python -m experiments.run --workdir=runs/r1_distill_qwen_1_5b \
            --config=experiments/configs/r1_distill_qwen_1_5b.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-Math-1.5B; see experiments/configs/_sft.py.
Expected. Published: AIME24 28.9, MATH-500 83.9, GPQA-Diamond 33.8,
          LiveCodeBench 16.9. Not run here: the traces are not public. `:test`
          only shows that every stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   DeepSeek-R1 (2501.12948) and its README: 2 to 3 epochs, here 2; batch
          64; cosine from 1e-4 to a tenth; context 32,768; no reinforcement.
"""

from ml_collections import ConfigDict

from experiments.configs import _sft


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  return _sft.recipe(
    arg,
    {"preset": "qwen2_5_math_1_5b"},
    {"learning_rate": 1e-4, "schedule": "cosine", "floor": 0.1},
    batch=64,
    length=32_768,
    steps=25_000,
  )
