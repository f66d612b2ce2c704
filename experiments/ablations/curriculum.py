"""A curriculum against the same texts in any order.

Hypotheses. H1 From short products to long ones, each level opened by the
            student's own pass rate, beats the same number of tokens of all
            levels shuffled: climbed - shuffled > 0.05 on the longest.
            H2 What opens a level matters: climbed - by_time > 0.
            H3 Of a chain removed line by line more is kept inside than where
            it was never written: removed - answer_only > 0.05.

A first budget, 400 steps, a level passed at 0.8 or left after 140, is in the
results: no level was ever passed, and H2 not tested. In sight of its rates, 0.1
to 0.3 after so many steps of a level, a level is now passed at 0.25.

Command.  python -m experiments.seeds --workdir=runs/ladder --seeds=0,1,2 \
            --config=experiments/ablations/curriculum.py \
            --out=experiments/results/distillation/ladder.md
Expected. experiments/results/distillation.md.
Source.   Bengio et al. 2009; TAPIR (2405.13448) and 2602.17686 for distillation
          from easy to complex; removal: Deng et al. 2024 (2405.14838).
"""

from ml_collections import ConfigDict

from experiments.configs import _pair, curriculum

STUDENTS = ("climbed", "by_time", "shuffled", "removed", "answer_only")
PAIRS = (
  ("climbed", "shuffled"),
  ("climbed", "by_time"),
  ("removed", "answer_only"),
)
STEPS, PASSED, PATIENCE = 800, 0.25, 300
REMOVED = {"without_one": 1, "without_two": 2, "without_three": 3}  # lines


def shortened(test, lines):
  """Chains of the longest products without their first lines."""
  gate = {"name": "research.annotation.shorten", "args": {"lines": lines}}
  return _pair.annotate(test, gates=[gate])


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg)
  config.annotate = _pair.annotate(test)
  config.update(curriculum.written(test))
  for name, lines in REMOVED.items():
    config[name] = shortened(test, lines)
  longest = _pair.problems("ood")  # tried on what no one reads
  names = ("annotate", *REMOVED)
  less = [(f"{{{name}}}/traces.jsonl", longest) for name in names]
  ladder = curriculum.ladder()
  waits = {} if test else {"patience": PATIENCE}
  climb = lambda levels, passed: curriculum.climb(
    levels, test, STEPS, passed=passed, **waits
  )
  config.climbed, config.removed = climb(ladder, PASSED), climb(less, PASSED)
  config.by_time = climb(ladder, 1.1)
  together = {path: 1.0 for path, _ in ladder}
  config.shuffled = _pair.distill(together, STEPS, test)
  answers = {"{annotate}/answers.jsonl": 1.0}
  config.answer_only = _pair.distill(answers, STEPS, test)
  config.evaluate = _pair.evaluate(test, STUDENTS, PAIRS)
  levels = (*curriculum.LEVELS, *REMOVED)
  config.stages = ("annotate", *levels, *STUDENTS, "evaluate")
  return config
