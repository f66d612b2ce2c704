"""Four signals from one beginning, at equal tokens and at equal FLOPs.

experiments/ablations/signals.py compares students that began on their own, and
lets text alone be read at equal FLOPs. Here all begin from one student that has
read long products for a while, with one optimizer, and go on by text, by the
teacher's distribution on it, forward and reverse, and by the teacher's
distribution on what they write themselves.

Hypotheses. H1 At equal tokens a distribution teaches more than its text:
            forward_kl - text > 0.
            H2 On written text the direction matters little: reverse_kl -
            forward_kl is within 0.05 of 0.
            H3 From a student that is sometimes right, its own answers teach
            more than written ones: on_policy - reverse_kl > 0.
            H4 At equal FLOPs text wins: text_flops is above forward_kl_flops,
            reverse_kl_flops and on_policy.
Command.  python -m experiments.seeds --workdir=runs/budgets --seeds=0,1,2 \
            --config=experiments/ablations/budgets.py \
            --out=experiments/results/distillation/budgets.md
          after experiments/configs/multiplication_teacher.py has run.
Expected. experiments/results/distillation.md.
Source.   GKD (2306.13649), MiniLLM (2306.08543), Thinking Machines 2025.

A token costs a student of P parameters 6 P FLOPs to learn, a teacher of E
parameters 2 E to judge, and the student 2 P to write: 3.6, 9.1 and 1.2 MFLOPs.
`on_policy` is what the other budgets are cut to: in its FLOPs 1.09 times its
tokens can be judged, and 3.86 times as many read.
"""

from ml_collections import ConfigDict

from experiments.ablations import signals
from experiments.configs import _pair

WARM, STEPS = 400, 150
JUDGED, READ = 1.09, 3.86  # steps, by those of on_policy, at equal FLOPs
PAIRS = (
  ("forward_kl", "text"),
  ("reverse_kl", "text"),
  ("reverse_kl", "forward_kl"),
  ("on_policy", "reverse_kl"),
  ("on_policy", "text"),
  ("text_flops", "forward_kl_flops"),
  ("text_flops", "reverse_kl_flops"),
  ("text_flops", "on_policy"),
)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  own = signals.judged(test)
  own["loop"] |= {} if test else {"steps": STEPS}

  def written(share, loss=None):
    rest = {"start": "warm", "optimizer": own["optimizer"]}
    if loss is not None:
      rest |= {"teacher": "teacher", "loss": signals.divergence(loss)}
    return _pair.distill(signals.TRACES, int(share * STEPS), test, **rest)

  students = {
    "warm": _pair.distill(signals.TRACES, WARM, test),
    "text": written(1),
    "forward_kl": written(1, "forward_kl"),
    "reverse_kl": written(1, "reverse_kl"),
    "on_policy": own,
    "text_flops": written(READ),
    "forward_kl_flops": written(JUDGED, "forward_kl"),
    "reverse_kl_flops": written(JUDGED, "reverse_kl"),
  }
  config = _pair.base(arg)
  stages = {"annotate": _pair.annotate(test), "teacher": _pair.teacher(test)}
  stages |= students
  stages["evaluate"] = _pair.evaluate(test, tuple(students), PAIRS)
  config.update(stages)
  config.stages = tuple(stages)
  return config
