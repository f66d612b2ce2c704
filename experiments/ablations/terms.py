"""Clips and KL terms of one algorithm, from one weak start, at equal samples.

GRPO's groups and clip, four updates a step, but no std, which k1 in the reward
could not have: without any KL from the start and with each form of it, k1 in
the reward, and as a loss k2, k3, k3 with the ratio's weight, and the whole
distribution. And `narrow` and `wide`, whose clip above is 0.2 and 0.28, with
eight updates a step, so that more ratios come as far as a clip.

Hypotheses. H1 A clip of 0.28 above keeps entropy: wide/entropy - narrow/entropy
            > 0 at the end.
            H2 k2, the weighted k3 and the whole distribution, which have the
            gradient of KL(policy || reference), hold the policy alike: their
            kl at the end are each below half of grpo's, and differ by less than
            a quarter.
            H3 k1 in the reward, whose gradient is of whole answers, holds it
            as well as they.
            H4 A KL costs reward: every form is below grpo.
Command.  python -m experiments.seeds --workdir=runs/terms --seeds=0,1,2 \
            --config=experiments/ablations/terms.py \
            --figures='.*/(pass@1|entropy|kl)' \
            --out=experiments/results/reinforcement/terms.md
Expected. experiments/results/reinforcement.md.
Source.   DAPO (2503.14476) for the clip, Schulman 2020 for the forms. beta is
          0.5, far above the published 1e-3: here it is to be seen.
"""

from ml_collections import ConfigDict

from experiments.ablations import algorithms

BETA = 0.5
CLIPS = {"narrow": {"clip_high": 0.2}, "wide": {"clip_high": 0.28}}
FORMS = {
  "k2": {"kl": "k2", "beta": BETA},
  "k3": {"kl": "k3", "beta": BETA},
  "weighted": {"kl": "k3_weighted", "beta": BETA},
  "full": {"kl": "full", "beta": BETA},
}


def students(test):
  """GRPO without any term, with each, and with two clips."""
  make = lambda args: algorithms.policy("grpo", args, test)
  plain = {"normalize": False}
  own = {"reference": "start", "advantage": plain}
  found = {
    "grpo": make({}) | own,
    "k1": make({}) | own | {"advantage": plain | {"beta": BETA}},
  }
  found |= {name: make(args) | own for name, args in FORMS.items()}
  more = own | {"epochs": 4}
  return found | {name: make(args) | more for name, args in CLIPS.items()}


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  told = students(arg == "test")
  against = [(name, "grpo") for name in ("k1", *FORMS)]
  against += [("wide", "narrow")]
  metrics = ("reward", "entropy", "kl", "clip_fraction")
  return algorithms.compare(arg, told, metrics, against)
