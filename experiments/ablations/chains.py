"""Long, short or mixed chains, by the size of the student.

Hypotheses. H1 The small student (0.1 M) learns more from long chains, where no
            line asks for much, than from short ones: long - short > 0.2.
            H2 The gap shrinks with size: at 0.6 M it is smaller than at 0.1 M.
            H3 Mixed chains are never worse than the worse of both.
Command.  python -m experiments.seeds --workdir=runs/chains_small \
            --config=experiments/ablations/chains.py:small --seeds=0,1,2 \
            --out=experiments/results/distillation/chains_small.md
          and the same with `large`.
Expected. experiments/results/distillation.md.
Source.   Li et al. 2025 (2502.12143): students of 3B and less learn better
          from short or mixed chains. There a long chain is a detour; here it
          is the same way in smaller steps, so the sign may well differ.

Products of two digits by two, of which a short chain has the rows and not how
their digits came about: 38 tokens and not 105. All students of a size see the
same number of tokens.

A first budget, 400 steps on products of three digits by two, taught the small
student nothing at all (0.004, 0.000 and 0.000 right): this one replaced it
before any seed of it was seen.
"""

from ml_collections import ConfigDict

from experiments.configs import _pair, multiplication_teacher

STEPS = 1000
DIGITS, LENGTH = (2, 2), 108  # the longest product, and its answer
SIZES = {"small": (48, 2), "large": (128, 3), "test": (32, 1)}
LONG, SHORT = "{annotate}/traces.jsonl", "{short}/traces.jsonl"


def get_config(arg: str = "large") -> ConfigDict:
  """Returns the comparison at a size of the student; "test" takes seconds."""
  test = arg == "test"
  width, layers = SIZES[arg or "large"]
  config = _pair.base(arg, width=width, layers=layers)
  asked = multiplication_teacher.products(DIGITS, "train")
  config.annotate = _pair.annotate(test, problems=asked)
  config.short = _pair.annotate(
    test,
    problems=asked,
    gates=[
      {
        "name": "research.annotation.shorten",
        "args": {"detail": _pair.DETAIL},
      }
    ],
  )
  # In tokens, not in records: there are 2.8 short chains to a long one.
  mixtures = {
    "on_long": {LONG: 1.0},
    "on_short": {SHORT: 1.0},
    "on_both": {LONG: 1.0, SHORT: 2.8},
  }
  for name, mixture in mixtures.items():
    config[name] = _pair.distill(mixture, STEPS, test, length=LENGTH)
  pairs = (("on_long", "on_short"), ("on_both", "on_long"))
  pairs += (("on_both", "on_short"),)
  held_out = multiplication_teacher.products(DIGITS, "test")
  suite = {"problems": held_out, "count": 8 if test else 384}
  config.evaluate = _pair.evaluate(test, tuple(mixtures), pairs, **suite)
  config.stages = ("annotate", "short", *mixtures, "evaluate")
  return config
