"""Own attempts mended, and own beginnings reinforced, against neither.

A student of 0.6 M that has begun to learn long products writes attempts. From
there on, at as many steps, it reads

  corrected   the solver's products where it failed itself
  read_on     the solver's products, of all that it attempted

and then, from `corrected`, in as many steps samples at most as many tokens

  student     behind its own right beginnings, paid for the next line
  from_start  at any products, paid for the answer

The attempts are at products that the student may have read, and those that it
failed are fewer, so each of them is read more often.

Hypotheses. H1 What a student failed teaches it more than what comes:
            corrected - read_on > 0.02.
            H2 A short way from where it erred teaches more than the whole way:
            student - from_start > 0.02.
            H3 A next line that is right is worth something at the end:
            student - corrected > 0.
Command.  python -m experiments.seeds --workdir=runs/correction --seeds=0,1,2 \
            --config=experiments/ablations/correction.py \
            --out=experiments/results/reinforcement/correction.md
Expected. experiments/results/reinforcement.md.
Source.   SCoRe (2509.14257), where a large model mends an agent's steps.
"""

from ml_collections import ConfigDict

from experiments.configs import _pair, score

PAIRS = (
  ("corrected", "read_on"),
  ("student", "from_start"),
  ("student", "corrected"),
  ("corrected", "taught"),
)
STUDENTS = ("taught", "corrected", "read_on", "student", "from_start")
# Whole answers in the place of lines, so that no more tokens are sampled.
WHOLE = score.BEGUN * score.LINE // _pair.NEW_TOKENS


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  config = _pair.base(arg, context=score.CONTEXT)
  stages = score.stages(test)
  del stages["evaluate"]
  stages["same"] = _pair.annotate(test, score.ATTEMPTED)
  stages["read_on"] = score.correct({"{same}/traces.jsonl": 1.0}, test)
  whole = score.reinforce("corrected", test, problems=_pair.problems("train"))
  if test:
    whole["rollout"]["new_tokens"] = 8
  else:
    new = {"new_tokens": _pair.NEW_TOKENS}
    whole["rollout"] |= new | {"problems": WHOLE, "rows": 8 * WHOLE}
  stages["from_start"] = whole | {"pool": 16 if test else 4_000}
  stages["evaluate"] = _pair.evaluate(test, STUDENTS, PAIRS, samples=4)
  config.update(stages)
  config.stages = tuple(stages)
  return config
