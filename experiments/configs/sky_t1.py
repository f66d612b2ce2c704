"""Sky-T1-32B: fine-tuning on 17,000 traces of QwQ for $450.

Hypothesis. A reasoning model's traces, rewritten into one format and kept where
            they verify, carry over within a day of eight GPUs.
Command.  python -m experiments.run --workdir=runs/sky_t1 \
            --config=experiments/configs/sky_t1.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-32B-Instruct and the rows of
          NovaSky-AI/Sky-T1_data_17k as JSONL, its `conversations` as `messages`
          of `role` and `content`; see experiments/configs/_sft.py.
Expected. Published: AIME24 43.3, MATH-500 86.4. Not run here. `:test` only
          shows that every stage runs.
Cost.     Published: 19 hours of 8 H100. `:test`: half a minute of one CPU core.
Source.   NovaSky-AI/SkyThought: 3 epochs, 1e-5, batch 96; the schedule is ours.
"""

from ml_collections import ConfigDict

from experiments.configs import _sft


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  return _sft.recipe(
    arg,
    {"preset": "qwen2_5_32b"},
    {"learning_rate": 1e-5, "schedule": "cosine", "warmup": 53},
    batch=96,
    length=16_384,
    steps=531,
  )
