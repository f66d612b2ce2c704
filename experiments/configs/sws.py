"""SwS: new problems where a first reinforcement showed a weakness.

Hypothesis. Problems of the skills that a student fails to learn teach it more
            than as many drawn without regard to it.
Command.  python -m experiments.run --workdir=runs/sws \
            --config=experiments/configs/sws.py \
            --config.base.directory=DIR --config.data_dir=DIR
          from Qwen/Qwen2.5-7B, on GSM8K: the ledger is of one half, and what is
          chosen of the other, in the place of MATH-12k and of 40k problems that
          a model recombines from the concepts of failed ones. With
          `sws.py:small`, which needs neither, on countdown.
Expected. Published: +10.0 points at 7 B over the base on eight benchmarks. Not
          run here; against its controls: experiments/ablations/weakness.py.
Cost.     `:small`: five minutes of a core; `:test`: one minute.
Source.   Liang et al. 2025 (2506.08989) and its scripts: 1e-6, no KL, 1,024
          problems with 8 answers of 7,168 tokens each, minibatches of 256, 30
          epochs, twice, both from the base; a problem is weak where it stays
          below 0.5 and falls; in the second run groups of 1 to 7 right answers
          alone. There the new problems join the old ones; here they are all
          new, half of them chosen.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair, _zero

ANSWERS = {"{annotate}/answers.jsonl": 1.0}
WARM = 300
STEPS, ASKED, POOL = 30, 32, 320  # each problem of the first run comes thrice
# The skills that such problems ask for in large part, often or seldom solved.
SKILLS = (
  "plus_plus",
  "plus_minus",
  "plus_times",
  "minus_times",
  "plus_over",
)


def countdown(split: str, **rest: Any) -> dict[str, Any]:
  """Numbers up to 20, for enough problems of each skill to be held out."""
  return _zero.countdown(split, largest=20, **rest)


def begin(test: bool) -> dict[str, dict[str, Any]]:
  """A student that has read answers, and what it makes of a few problems."""
  return {
    "annotate": _pair.annotate(test, problems=countdown("train")),
    "start": _pair.distill(ANSWERS, WARM, test, length=_zero.ROOM),
    "first": reinforce("start", test, countdown("train"), POOL),
  }


def reinforce(
  start: str, test: bool, asked: dict[str, Any], pool: int
) -> dict[str, Any]:
  """A student that goes on from `start`, by GRPO."""
  steps = {"steps": 2 if test else STEPS, "save_every": 15}
  about = {"start": start, "problems": asked, "pool": 2 if test else pool}
  return _zero.policy(test, "grpo", {}, ASKED, loop=steps, **about)


def target(test: bool, **rest: Any) -> dict[str, Any]:
  """As many new problems as the steps to come ask."""
  return {
    "stage": "experiments.stages.target",
    "first": "first",
    "problems": countdown("train"),
    "pool": 2 if test else POOL,
    "fresh": countdown("train"),
    "candidates": 64 if test else 8_000,
    "count": 8 if test else STEPS * ASKED,
    "least": 1 if test else 8,
  } | rest


def again(aimed: str, test: bool) -> dict[str, Any]:
  """The first student on what a target stage chose."""
  asked = countdown("train") | {"path": f"{{{aimed}}}/problems.jsonl"}
  return reinforce("first", test, asked, STEPS * ASKED)


def evaluate(
  test: bool, students: tuple[str, ...], pairs: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
  """All students on problems as they come, and on each skill's own."""
  each = {"count": 8 if test else 64, "new_tokens": _zero.ANSWER}
  suites = [{"prefix": "", "problems": countdown("test")} | each]
  if not test:
    suites[0]["count"] = 512
  suites += [
    {"prefix": f"{name}/", "problems": countdown("test", skills=[name])} | each
    for name in SKILLS
  ]
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": suites[:2] if test else suites,
    "samples": 2 if test else 4,
    "ks": [1, 2] if test else [1, 4],
    "pairs": pairs,
    "rows": 16 if test else 512,
  }


def law(new_tokens: int) -> dict[str, Any]:
  """What the source gives at any length."""
  del new_tokens
  return {
    "algorithm": {"name": "research.algorithms.grpo", "args": {}},
    "advantage": {},
    "optimizer": {"learning_rate": 1e-6, "schedule": "constant"},
    "rollout": {"problems": 1024, "temperature": 1.0},
    "minibatches": 4,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  sizes = [(7_168, 8, 110), (7_168, 8, 60)]  # 30 epochs of each
  config = _zero.recipe(arg, "qwen2_5_7b", law, sizes)
  asked = _zero.countdown("train")
  if not arg:
    args = ConfigDict({"data_dir": config.get_ref("data_dir")})
    asked = _zero.GSM8K.train | {"args": args}
  # In small forms each problem of the first run comes twice or more.
  pool, candidates, count = {
    "": (3_736, 7_473, 2_000),
    "small": (240, 8_000, 720),
    "test": (2, 32, 8),
  }[arg]
  target = {
    "stage": "experiments.stages.target",
    "first": "student_1",
    "problems": asked,
    "pool": pool,
    "fresh": asked,
    "candidates": candidates,
    "count": count,
    "share": 0.5,
  }
  again = {"problems": {"path": "{target}/problems.jsonl"}, "start": "base"}
  again |= {"rollout": {"refills": None if arg == "test" else 0}}
  pairs = (("student_2", "base"), ("student_2", "student_1"))
  stages = {"student_1": {"pool": pool}, "target": target, "student_2": again}
  config.update(stages | {"evaluate": {"pairs": pairs}})
  begun = ("annotate", "base") if arg else ("base",)
  config.stages = (*begun, "student_1", "target", "student_2", "evaluate")
  return config
