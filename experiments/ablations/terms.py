"""Clips and KL terms of one algorithm, from one weak start, at equal samples.

GRPO's groups and clip, four updates a step, but no std, which k1 in the reward
could not have: once with the clip wider above and once with each form of KL
from the start, k1 in the reward, and as a loss k2, k3, k3 with the ratio's
weight, and the whole distribution.

Hypotheses. H1 A clip of 0.28 above keeps entropy: high/entropy - grpo/entropy
            > 0 at the end.
            H2 k2, the weighted k3 and the whole distribution, which have the
            gradient of KL(policy || reference), hold the policy alike: their
            kl at the end differ by less than a quarter.
            H3 k1 in the reward, whose gradient is of whole answers, holds it
            as well as they.
            H4 A KL costs reward: every form is below grpo.
Command.  python -m experiments.seeds --workdir=runs/terms --seeds=0,1,2 \
            --config=experiments/ablations/terms.py \
            --figures='.*/(pass@1|entropy|kl)' \
            --out=experiments/results/reinforcement/terms.md
Expected. experiments/results/reinforcement.md.
Source.   DAPO (2503.14476) for the clip, Schulman 2020 for the forms. beta is
          0.1, far above the published 1e-3: here it is to be seen.
"""

from ml_collections import ConfigDict

from experiments.ablations import algorithms

BETA = 0.1
FORMS = {
  "k2": {"kl": "k2", "beta": BETA},
  "k3": {"kl": "k3", "beta": BETA},
  "weighted": {"kl": "k3_weighted", "beta": BETA},
  "full": {"kl": "full", "beta": BETA},
}


def students(test):
  """GRPO without any term, with each, and with a wider clip."""
  make = lambda args: algorithms.policy("grpo", args, test)
  plain = {"normalize": False}
  own = {"reference": "start", "advantage": plain}
  found = {
    "grpo": make({}) | own,
    "high": make({"clip_high": 0.28}) | own,
    "k1": make({}) | own | {"advantage": plain | {"beta": BETA}},
  }
  return found | {name: make(args) | own for name, args in FORMS.items()}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  told = students(arg == "test")
  against = [(name, "grpo") for name in told if name != "grpo"]
  metrics = ("reward", "entropy", "kl", "clip_fraction")
  return algorithms.compare(arg, told, metrics, against)
