"""Problems aimed at a weakness, and as many as they come.

A student of 0.6 M that names expressions for countdown, as in
experiments/ablations/algorithms.py but of numbers up to 20, is reinforced on
320 problems, three times each. Its skills are the operations of a problem's
solution. It then goes on with as many answers to as many other problems, of
which it was reinforced on none and has read most answers, chosen

  aimed     by SwS's rule: in proportion to the share of a skill's problems that
            it never solved half of the time and solved ever less
  failed    in proportion to the share of wrong answers in the last ten steps
  as_drawn  as the task draws them, the control

Hypotheses. H1 Aimed problems teach more than those that come: aimed - as_drawn
            > 0.02 on problems as they come.
            H2 What they teach is the weak skills: aimed - as_drawn is larger on
            minus_times than on plus_plus, where it may be below 0.
            H3 To ask what is failed most is not enough, for most of it is out
            of reach: failed - as_drawn < 0.02.
Command.  python -m experiments.seeds --workdir=runs/weakness --seeds=0,1,2 \
            --config=experiments/ablations/weakness.py \
            --out=experiments/results/reinforcement/weakness.md
Expected. experiments/results/reinforcement.md. With numbers up to 12 and seed 0
          the ledger of the first run called 0.25 of minus_times and 0.35 of
          plus_times weak, 0.02 of plus_plus, and none of minus_over, where
          nothing was ever solved.
Cost.     8 to 9 minutes of one CPU core a seed.
Source.   SwS (2506.08989), where the skills are mathematical domains, a model
          writes the problems, and both runs begin from the base.
"""

from ml_collections import ConfigDict

from experiments.ablations import algorithms
from experiments.configs import _pair, sws

AIMS = {
  "aimed": {"by": "weak"},
  "failed": {"by": "wrong"},
  "as_drawn": {"share": 0.0},
}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg)
  stages = sws.begin(test)
  for name, aim in AIMS.items():
    stages[f"for_{name}"] = sws.target(test, **aim)
    stages[name] = sws.again(f"for_{name}", test)
  pairs = [(name, "as_drawn") for name in AIMS if name != "as_drawn"]
  pairs += [("aimed", "failed"), ("as_drawn", "first")]
  students = ("start", "first", *AIMS)
  metrics = ("reward", "length", "degenerate_groups")
  stages["trend"] = algorithms.trend(test, students[1:], metrics)
  stages["evaluate"] = sws.evaluate(test, students, tuple(pairs))
  config.update(stages)
  config.stages = tuple(stages)
  return config
