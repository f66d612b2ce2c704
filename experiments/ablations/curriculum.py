"""A curriculum against the same texts in any order.

Hypotheses. H1 From short products to long ones, each level opened by the
            student's own pass rate, beats the same number of tokens of all
            levels shuffled: climbed - shuffled > 0.05 on the longest.
            H2 What opens a level matters: climbed - by_time > 0.
            H3 Of a chain removed line by line more is kept inside than where
            it was never written: removed - answer_only > 0.05.
Command.  python -m experiments.seeds --workdir=runs/curriculum --seeds=0,1,2 \
            --config=experiments/ablations/curriculum.py \
            --out=experiments/results/distillation/curriculum.md
Expected. experiments/results/distillation.md.
Source.   Bengio et al. 2009; TAPIR (2405.13448) and 2602.17686 for distillation
          from easy to complex; removal: Deng et al. 2024 (2405.14838).
"""

from ml_collections import ConfigDict

from experiments.ablations import _pair

STEPS = 400
LEVELS = {"one": (3, 1), "two": (2, 2), "three": (3, 2)}
TASK = "research.tasks.multiplication"


def problems(split, digits):
  """Products of so many digits."""
  return {"task": TASK, "split": split, "args": {"digits": (digits,)}}


def probe(test, **rest):
  """How often the student is tried, and what it must reach."""
  return {
    "every": 2 if test else 20,
    "count": 4 if test else 64,
    "new_tokens": _pair.NEW_TOKENS,
    "passed": 0.8,
    "patience": 2 if test else 140,
  } | rest


def climb(levels, test, **rest):
  """A student on levels, [(path, problems)]."""
  usual = _pair.distill({}, STEPS, test)
  del usual["corpora"]
  return usual | {
    "stage": "experiments.stages.curriculum",
    "levels": [
      {"corpora": [{"path": path}], "problems": asked} for path, asked in levels
    ],
    "probe": probe(test, **rest),
    "review": 0.2,
  }


def shortened(test, lines):
  """Chains of the longest products without their first lines."""
  args = {"lines": lines}
  gate = {"name": "research.annotation.shorten", "args": args}
  return _pair.annotate(test, gates=[gate])


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg)
  easy = {f"level_{name}": digits for name, digits in LEVELS.items()}
  for name, digits in easy.items():
    config[name] = _pair.annotate(
      test, 3_000, problems=problems("train", digits)
    )
  ladder = [
    (f"{{{name}}}/traces.jsonl", problems("train", digits))
    for name, digits in easy.items()
  ]
  removed = {f"without_{n}": n for n in (1, 2, 3)}
  for name, lines in removed.items():
    config[name] = shortened(test, lines)
  longest = problems("train", LEVELS["three"])
  less = [(f"{{{name}}}/traces.jsonl", longest) for name in removed]
  config.climbed = climb(ladder, test)
  config.by_time = climb(ladder, test, passed=1.1)
  config.shuffled = _pair.distill(
    {path: 1.0 for path, _ in ladder}, STEPS, test
  )
  config.removed = climb([("{annotate}/traces.jsonl", longest), *less], test)
  config.answer_only = _pair.distill(
    {"{annotate}/answers.jsonl": 1.0}, STEPS, test
  )
  students = ("climbed", "by_time", "shuffled", "removed", "answer_only")
  pairs = (
    ("climbed", "shuffled"),
    ("climbed", "by_time"),
    ("removed", "answer_only"),
  )
  config.evaluate = _pair.evaluate(test, students, pairs)
  config.stages = ("annotate", *easy, *removed, *students, "evaluate")
  return config
