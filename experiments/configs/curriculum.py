"""From short products to long ones, each level opened by the student itself.

Hypothesis. A student that passes a level before it meets the next reaches the
            longest products with fewer tokens than one that meets all at once.
Command.  python -m experiments.run --workdir=runs/curriculum \
            --config=experiments/configs/curriculum.py
Expected. Against its controls, over seeds: experiments/ablations/curriculum.py
          and experiments/results/distillation.md.
Cost.     About 4 minutes of one CPU core.
Source.   Bengio et al. 2009; from basic to complex in distillation: TAPIR
          (2405.13448), 2602.17686. The threshold and the review are ours.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair
from experiments.configs.multiplication_teacher import products

STEPS = 400
LEVELS = {"level_one": (3, 1), "level_two": (2, 2), "level_three": (3, 2)}


def _probe(test: bool, **rest: Any) -> dict[str, Any]:
  return {
    "every": 2 if test else 20,
    "count": 4 if test else 64,
    "new_tokens": _pair.NEW_TOKENS,
    "passed": 0.8,
    "patience": 2 if test else 140,
  } | rest


def climb(
  levels: list[tuple[str, dict[str, Any]]],
  test: bool,
  steps: int = STEPS,
  **probe: Any,
) -> dict[str, Any]:
  """A student on levels, [(path of texts, problems to pass)]."""
  usual = _pair.distill({}, steps, test)
  del usual["corpora"]
  return usual | {
    "stage": "experiments.stages.curriculum",
    "levels": [
      {"corpora": [{"path": path}], "problems": asked} for path, asked in levels
    ],
    "probe": _probe(test, **probe),
    "review": 0.2,
  }


def written(test: bool) -> dict[str, Any]:
  """The texts of each level, by the name of the stage that writes them."""
  return {
    name: _pair.annotate(test, 3_000, problems=products(digits, "train"))
    for name, digits in LEVELS.items()
  }


def ladder() -> list[tuple[str, dict[str, Any]]]:
  """The levels of `climb`, from the shortest, tried on what no one reads."""
  return [
    (f"{{{name}}}/traces.jsonl", products(digits, "ood"))
    for name, digits in LEVELS.items()
  ]


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg)
  config.update(written(test))
  config.student = climb(ladder(), test)
  config.evaluate = _pair.evaluate(test, ("student",), ())
  config.stages = (*LEVELS, "student", "evaluate")
  return config
