"""What a student learns from: answers, texts, a teacher's whole distribution.

Hypotheses. H1 A chain of thought beats the answer alone: sft - answer_only is
            at least 0.3 at equal steps.
            H2 At equal student tokens a distribution teaches more than its
            text: forward_kl - sft > 0.
            H3 On-policy beats off-policy at equal student tokens:
            on_policy - reverse_kl > 0, both from the same beginning.
            H4 At equal FLOPs text wins: sft_flops - forward_kl > 0.
Command.  python -m experiments.seeds --workdir=runs/signals --seeds=0,1,2 \
            --config=experiments/ablations/signals.py \
            --out=experiments/results/distillation/signals.md
          after experiments/configs/multiplication_teacher.py has run.
Expected. experiments/results/distillation.md.
Source.   GKD (2306.13649), MiniLLM (2306.08543), Thinking Machines 2025.

A token costs a student of P parameters 6 P FLOPs to learn, a teacher of E
parameters 2 E to judge, and the student 2 P to write: 3.6, 9.1 and 1.2 MFLOPs.
So `sft_flops` may read 3.5 times what `forward_kl` does. All other students see
STEPS steps of 16 rows, the first WARM of which are the same for `reverse_kl`
and `on_policy`; a step on policy has 16 answers and no more tokens.
"""

from ml_collections import ConfigDict

from experiments.configs import _pair

STEPS, WARM, FLOPS = 450, 300, 3.5
TRACES = {"{annotate}/traces.jsonl": 1.0}


def divergence(name):
  """A loss on the teacher's distribution."""
  return {"name": f"research.losses.{name}", "args": {"block": 2048}}


def judged(test):
  """The student's own answers under the teacher's reverse KL."""
  return {
    "stage": "experiments.stages.on_policy",
    "start": "warm",
    "domains": [
      {
        "teacher": "teacher",
        "problems": _pair.problems("train"),
        "pool": 16 if test else 20_000,
      }
    ],
    "rollout": {
      "problems": 4 if test else 16,
      "group": 1,
      "new_tokens": _pair.NEW_TOKENS,
      "length": _pair.LENGTH + 8,  # a prompt, and an answer that goes on
      "rows": 16,
    },
    "loss": divergence("reverse_kl"),
    "optimizer": {"learning_rate": 1e-3, "warmup": 5, "floor": 0.05},
    "loop": {"steps": 2 if test else STEPS - WARM, "save_every": 50},
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg)
  config.annotate = _pair.annotate(test)
  config.teacher = _pair.teacher(test)
  written = lambda steps, **rest: _pair.distill(TRACES, steps, test, **rest)
  taught = lambda name: {"teacher": "teacher", "loss": divergence(name)}
  config.answer_only = _pair.distill(
    {"{annotate}/answers.jsonl": 1.0}, STEPS, test
  )
  config.sft = written(STEPS)
  config.sft_flops = written(int(FLOPS * STEPS))
  config.forward_kl = written(STEPS, **taught("forward_kl"))
  config.warm = written(WARM)
  config.on_policy = judged(test)
  config.reverse_kl = written(
    STEPS - WARM,
    start="warm",
    optimizer=judged(test)["optimizer"],
    **taught("reverse_kl"),
  )
  students = ("answer_only", "sft", "sft_flops", "forward_kl", "warm")
  students += ("reverse_kl", "on_policy")
  pairs = (
    ("sft", "answer_only"),
    ("forward_kl", "sft"),
    ("on_policy", "reverse_kl"),
    ("sft_flops", "forward_kl"),
  )
  config.evaluate = _pair.evaluate(test, students, pairs)
  config.stages = ("annotate", "teacher", *students, "evaluate")
  return config
