"""How long wrong answers grow under GRPO, and under Dr.GRPO.

A student of 0.6 M has read searches for countdown, with their dead ends, and is
reinforced from there with as many answers by

  grpo      the mean over each answer's tokens, and the std of its group
  by_token  the mean over all tokens, and the std
  dr_grpo   the sum over tokens by a constant, and no std

A search may go on to 192 tokens; the longest that it read has about 170.

Hypotheses. H1 A mean over each answer's own tokens blames long wrong answers
            less: the wrong answers of grpo are longer at the end than those of
            dr_grpo, where both are wrong: dr_grpo - grpo, wrong_tokens < 0.
            H2 It is the mean that does it, not the std: those of by_token are
            within a tenth of dr_grpo's.
            H3 It costs nothing: dr_grpo - grpo > -0.02.
Command.  python -m experiments.seeds --workdir=runs/length --seeds=0,1,2 \
            --config=experiments/ablations/length.py \
            --figures='.*/wrong_tokens' \
            --out=experiments/results/reinforcement/length.md
Expected. experiments/results/reinforcement.md.
Source.   Dr.GRPO (2503.20783), where the wrong answers of a 1.5 B model grow on
          while its reward no longer does.
"""

from ml_collections import ConfigDict

from experiments.ablations import algorithms
from experiments.configs import _pair, _zero, r1

WARM, STEPS = 300, 40
ARMS = {
  "grpo": ("grpo", {"aggregate": "sequence"}),
  "by_token": ("grpo", {"aggregate": "token"}),
  "dr_grpo": ("dr_grpo", {"length": r1.ANSWER}),
}
METRICS = ("length_wrong", "reward", "entropy")


def reinforce(name, test):
  """A student of one mean, from the one that read searches."""
  algorithm, args = ARMS[name]
  told = algorithms.policy(algorithm, args, test)
  room = {"new_tokens": 8 if test else r1.ANSWER, "length": r1.ROOM}
  if not test:
    room |= {"problems": r1.PROBLEMS, "rows": r1.PROBLEMS * r1.GROUP}
    told["loop"] |= {"steps": STEPS}
  return told | {"rollout": told["rollout"] | room}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg, context=r1.ROOM)
  searches = {"{annotate}/traces.jsonl": 1.0}
  students = {name: reinforce(name, test) for name in ARMS}
  stages = {
    "annotate": _pair.annotate(test, problems=_zero.countdown("train")),
    "start": _pair.distill(searches, WARM, test, length=r1.ROOM, rows=8),
    **students,
    "trend": algorithms.trend(test, students, METRICS),
    "evaluate": _pair.evaluate(
      test,
      ("start", *students),
      (("dr_grpo", "grpo"), ("by_token", "dr_grpo"), ("grpo", "start")),
      samples=4,
      problems=_zero.countdown("test"),
      count=8 if test else _zero.HELD_OUT,
      new_tokens=8 if test else r1.ANSWER,
    ),
  }
  config.update(stages)
  config.stages = tuple(stages)
  return config
