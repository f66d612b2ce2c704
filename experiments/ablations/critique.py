"""Critique and revision: how much they save, and how much of that is right.

A student of 0.6 M that has learned long products writes attempts, hot, so that
it errs here and there; started from it, a critic learns from its wrong attempts
at other products, in the very words of the gate, to name the first wrong line
and to write the product anew. Each gate then sifts the same 512 attempts.

A first try, 300 steps on the 262 wrong of 3,000 attempts at temperature 1,
taught the critic nothing: it mended 0 of 43 in two rounds. So the writer became
hotter, and the lessons more, before any seed of this was seen.

Hypotheses. H1 A round of critique and revision mends wrong attempts: one_round
            - verified > 0.1 of the problems.
            H2 It is worth more than its tokens: two_rounds beats the best of
            three samples of the writer (a round writes more than a sample).
            H3 What is told the answer is less to be trusted: of `revealed`,
            the share with a wrong step is above that of `verified`.
Command.  python -m experiments.seeds --workdir=runs/critique --seeds=0,1,2 \
            --config=experiments/ablations/critique.py \
            --figures='.*/(yield|sound)' \
            --out=experiments/results/distillation/critique.md
Expected. experiments/results/distillation.md.
Source.   SciGLM (2401.07950), where teacher and critic are one large model.
"""

from ml_collections import ConfigDict

from experiments.configs import _pair

STEPS, LESSONS = 450, 500
HOT = 1.3  # the writer's temperature; the critic's is 1
LENGTH, CONTEXT = 600, 896  # a check, its critique, and the product anew
GATES = {
  "verified": [{"name": "research.annotation.verify"}],
  "one_round": {"rounds": 1, "reveal": False},
  "two_rounds": {"rounds": 2, "reveal": False},
  "revealed": {"rounds": 2, "reveal": True},
}


def asked(exported, test, temperature=1.0):
  """What a checkpoint of this run is asked with."""
  tokens, rows = (8, 8) if test else (_pair.NEW_TOKENS, 256)
  return _pair.asked(exported, tokens, rows, temperature)


def attempt(split, count, test, gates=(), samples=1):
  """Attempts of the writer at products."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": _pair.problems(split),
    "count": count,
    "samples": samples,
    "teacher": "research.teachers.checkpoint",
    "args": asked("exported", test, HOT),
    "gates": gates,
  }


def sifted(gate, count, test):
  """The same attempts behind a gate."""
  if isinstance(gate, dict):
    gate = [{"name": "research.annotation.critique", "args": gate}]
  critic = {
    "name": "research.teachers.checkpoint",
    "args": asked("exported_critic", test),
  }
  return {
    "stage": "experiments.stages.annotate",
    "problems": _pair.problems("ood"),
    "count": count,
    "teacher": "research.teachers.recorded",
    "args": {"path": "{attempts}/traces.jsonl"},
    "gates": gate,
    "critic": critic,
  }


def audit(count, test):
  """What each gate lets through."""
  pairs = (
    ("one_round", "verified"),
    ("two_rounds", "one_round"),
    ("two_rounds", "again"),
    ("revealed", "two_rounds"),
  )
  return {
    "stage": "experiments.stages.audit",
    "problems": _pair.problems("ood"),
    "count": count,
    "kept": ("attempts",) if test else ("attempts", *GATES, "again"),
    "pairs": () if test else pairs,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  few, many = (8, 16) if test else (512, 6000)
  config = _pair.base(arg, context=CONTEXT)
  train = {"problems": _pair.problems("train"), "count": many}
  lessons = {"{lessons}/lessons.jsonl": 1.0}
  shape = {"rows": 4, "length": LENGTH, "start": "writer"}
  stages = {
    "annotate": _pair.annotate(test),
    "writer": _pair.distill({"{annotate}/traces.jsonl": 1.0}, STEPS, test),
    "exported": _pair.export("writer"),
    "tried": attempt("train", many, test),
    "lessons": {
      "stage": "experiments.stages.correct",
      "attempts": "{tried}/traces.jsonl",
      **train,
    },
    "critic": _pair.distill(lessons, LESSONS, test, **shape),
    "exported_critic": _pair.export("critic"),
    "attempts": attempt("ood", few, test),
  }
  if not test:  # nothing that an untrained student writes passes a gate
    verify = GATES["verified"]
    stages["again"] = attempt("ood", few, test, verify, samples=3)
    stages |= {name: sifted(gate, few, test) for name, gate in GATES.items()}
  stages["audit"] = audit(few, test)
  config.update(stages)
  config.stages = tuple(stages)
  return config
