"""OpenR1-Distill-7B: fine-tuning on 350,000 verified traces of R1.

Hypothesis. Open traces, kept only where they verify, reproduce R1's own 7B.
Command.  python -m experiments.run --workdir=runs/openr1_distill \
            --config=experiments/configs/openr1_distill.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from open-r1/Qwen2.5-Math-7B-RoPE-300k and the rows of
          open-r1/Mixture-of-Thoughts as JSONL; see experiments/configs/_sft.py.
Expected. Published: AIME24 52.7, MATH-500 89.0, GPQA-Diamond 52.8,
          LiveCodeBench 39.4. Not run here. `:test` only shows that every
          stage runs.
Cost.     `:test`: half a minute of one CPU core.
Source.   huggingface/open-r1, recipes/OpenR1-Distill-7B: 5 epochs, batch 128
          (2 x 8 x 8), 4e-5 to a tenth, 3 % of warm-up, gradients clipped at
          0.2.
"""

from ml_collections import ConfigDict

from experiments.configs import _sft


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  rate = {"learning_rate": 4e-5, "schedule": "cosine", "floor": 0.1}
  return _sft.recipe(
    arg,
    {"preset": "qwen2_5_math_7b", "rope": {"base": 300_000.0}},
    rate | {"warmup": 410, "clip": 0.2},
    batch=128,
    length=32_768,
    steps=13_672,
  )
