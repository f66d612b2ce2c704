"""Policy-gradient algorithms from one weak start, at equal sampled answers.

A student of 0.6 M has read right answers to countdown problems, without any
working, and names an expression of the right numbers that rarely makes the
target. Each algorithm then samples as many answers to as many problems, with
one learning rate and two epochs of two minibatches a step, so that ratios
leave 1 and clips bite. PPO's critic and PRIME's reward model learn beside it;
`untaught` is PRIME whose reward model never learns. Both learn from groups with
2 to 6 right answers of 8, the source's filter. Of DAPO here are its wider clip
and the mean over tokens: no refills, which would sample more.

Hypotheses. H1 Every algorithm that is told the truth beats its start:
            x - start > 0.05.
            H2 Baselines and groups matter more than clips: no two of grpo,
            dr_grpo, dapo, gspo, cispo and rloo differ by more than 0.05.
            H3 The control, grpo paid by a coin, gains nothing: coin - start <
            0.03.
            H4 Rewards of tokens that a model learns from outcomes add to them:
            prime - untaught > 0.
Command.  python -m experiments.seeds --workdir=runs/algorithms --seeds=0,1,2 \
            --config=experiments/ablations/algorithms.py \
            --out=experiments/results/reinforcement/algorithms.md
Expected. experiments/results/reinforcement.md.
Source.   The papers of research/algorithms; PRIME's beta of 0.05.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair, _zero

ALIKE = ("dr_grpo", "dapo", "gspo", "cispo", "rloo")  # H2, beside grpo
COIN = {"task": "experiments.ablations._coin"}
STEPS, WARM = 50, 300
JUDGED = ("process_loss", "process_accuracy")  # of the reward models
CONSTANT = {"length": _zero.ANSWER}
BESIDE = {"optimizer": {"learning_rate": 1e-4, "schedule": "constant"}}
STILL = {"optimizer": {"learning_rate": 1e-12, "schedule": "constant"}}
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
  "reinforce": ("reinforce", {}),
  "rloo": ("rloo", {}),
  "ppo": ("ppo", {}),
  "grpo": ("grpo", {"aggregate": "sequence"}),
  "dr_grpo": ("dr_grpo", CONSTANT),
  "dapo": ("dapo", {}),
  "gspo": ("gspo", {"clip_low": 0.03, "clip_high": 0.03}),  # of a mean ratio
  "cispo": ("cispo", {}),
  "prime": ("prime", {}),
  "untaught": ("prime", {}),
  "expert": ("expert_iteration", {}),
  "coin": ("grpo", {"aggregate": "sequence"}),
}


def reinforce(name, test):
  """A student of one algorithm from the weak start."""
  algorithm, args = ALGORITHMS[name]
  told = policy(algorithm, args, test)
  if algorithm == "prime" and not test:  # whose student is never right
    told["rollout"] |= {"between": (0.2, 0.8)}
  return told | {
    "problems": _zero.countdown("train") | (COIN if name == "coin" else {}),
    "critic": BESIDE if name == "ppo" else None,
    "process": {"prime": BESIDE, "untaught": STILL}.get(name),
    "reference": "start" if algorithm == "prime" else None,
  }


def policy(algorithm, args, test):
  """A stage of reinforcement from the weak start."""
  steps = {"steps": 2 if test else STEPS, "save_every": 20}
  about = {"start": "start", "pool": 16 if test else 4000, "loop": steps}
  return _zero.policy(test, algorithm, args, 16, **about)


def evaluate(test, students, pairs):
  """Students, and what sampling finds in the one that all began from."""
  suite = {"prefix": "", "problems": _zero.countdown("test")}
  suite |= {"count": 8 if test else _zero.HELD_OUT, "new_tokens": _zero.ANSWER}
  against = [(name, "start") for name in students]
  return {
    "stage": "experiments.stages.evaluate",
    "students": ("start", *students),
    "suites": [suite],
    "samples": 2 if test else 8,
    "ks": [1, 2] if test else [1, 8],
    "pairs": [*against, *pairs],
    "rows": 16 if test else 512,
  }


def trend(test, students, metrics):
  """What the policies' last steps said."""
  return {
    "stage": "experiments.stages.trend",
    "stages": tuple(students),
    "metrics": metrics,
    "last": 1 if test else 10,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the comparison; "test" shrinks it to seconds."""
  test = arg == "test"
  students = {name: reinforce(name, test) for name in ALGORITHMS}
  metrics = ("reward", "entropy", "ratio_outside", "length", "gradient_norm")
  pairs = [("grpo", "coin"), ("prime", "untaught")]
  pairs += [(name, "grpo") for name in ALIKE]
  judged = trend(test, ("prime", "untaught"), JUDGED)
  return compare(arg, students, metrics, pairs, judged=judged)


def compare(arg, students, metrics, pairs, **beside):
  """Returns the run that reinforces such students from the weak start.

  `beside` are stages before the last, by name.
  """
  test = arg == "test"
  config = _pair.base(arg)
  answers = {"{annotate}/answers.jsonl": 1.0}
  stages = {
    "annotate": _pair.annotate(test, problems=_zero.countdown("train")),
    "start": _pair.distill(answers, WARM, test, length=_zero.ROOM),
    **students,
    "trend": trend(test, students, metrics),
    **beside,
    "evaluate": evaluate(test, students, pairs),
  }
  config.update(stages)
  config.stages = tuple(stages)
  return config
