"""A student learns to reason from a teacher, then by reinforcement.

Hypothesis. On chains of small operations modulo 10 a 0.6 M student that learns
from worked traces is right where the same student, on the same number of packed
training tokens, does no better on answers alone than by guessing (0.10). Of
what the student reads on the long chains half is worked and half a bare answer,
and it takes over both habits. Reinforcement, told only right or wrong on 4,000
of the long chains that it has read, unlearns the bare one: the gain on the long
chains is mostly the student's choosing to work, not new arithmetic, and how low
it starts is set by the mixture below.

Command.  make demo        (or `python -m experiments.run` with this config)
Expected. experiments/results/quickstart.md has three seeds: answers alone
          <= 0.50, distilled >= 0.90; on the long chains the distilled student
          between 0.2 and 0.8, reinforced minus distilled above zero.
Cost.     Under 10 minutes on 2 CPU cores.
Source.   Scratchpads: Nye et al. 2021 (2112.00114). GRPO: 2402.03300.
"""

from ml_collections import ConfigDict

TASK = "research.tasks.chain"
SHORT, LONG = (6, 8), (9, 11)  # operations, at least and at most


def problems(split, lengths):
  """Chains of so many operations."""
  return {"task": TASK, "split": split, "args": {"lengths": lengths}}


def annotate(lengths, count):
  """The solver works out `count` chains."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems("train", lengths),
    "count": count,
    "teacher": "research.teachers.solver",
    "gates": [
      {"name": "research.annotation.verify", "args": {"in_a_row": 100}}
    ],
  }


def distill(corpora, steps):
  """A student on a mixture of written texts, {path: weight}."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": p, "weight": w} for p, w in corpora.items()],
    "loss": {"name": "research.losses.supervised", "args": {"block": 2048}},
    "rows": 6,
    "length": 192,
    "shards": 2,
    "optimizer": {
      "learning_rate": 3e-3,
      "warmup": 20,
      "floor": 0.05,
    },
    "loop": {"steps": steps, "save_every": 200},
  }


def reinforce(steps):
  """GRPO on the long chains."""
  return {
    "stage": "experiments.stages.reinforce",
    "start": "distilled",
    "problems": problems("train", LONG),
    "pool": 4000,
    "rollout": {
      "problems": 16,
      "group": 8,
      "new_tokens": 112,
      "length": 192,
      "rows": 128,
    },
    "algorithm": {"name": "research.algorithms.grpo", "args": {}},
    "advantage": {},
    "optimizer": {
      "learning_rate": 1e-4,
      "schedule": "constant",
    },
    "loop": {"steps": steps, "save_every": 10},
  }


def evaluate(students, count, samples):
  """All students on short and on long chains that no one trained on."""
  suite = lambda prefix, lengths: {
    "prefix": prefix,
    "problems": problems("test", lengths),
    "count": count,
    "new_tokens": 112,
  }
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [suite("", SHORT), suite("hard/", LONG)],
    "samples": samples,
    "ks": [k for k in (1, 2, 4, 8) if k <= samples],
    "pairs": [("reinforced", "distilled")],
    "rows": 512,
  }


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds."""
  test = arg == "test"
  steps, count = (4, 8) if test else (800, 512)
  config = ConfigDict()
  config.seed = 0
  config.tokenizer = "bytes"
  width, layers = (32, 1) if test else (128, 3)
  config.model = {"preset": "tiny", "width": width, "layers": layers}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  config.annotate_short = annotate(SHORT, 64 if test else 20_000)
  config.annotate_long = annotate(LONG, 64 if test else 10_000)
  short, long = "{annotate_short}", "{annotate_long}"
  config.answer_only = distill(
    {f"{short}/answers.jsonl": 0.7, f"{long}/answers.jsonl": 0.3}, steps
  )
  worked = {f"{short}/traces.jsonl": 0.7, f"{long}/traces.jsonl": 0.15}
  config.distilled = distill(worked | {f"{long}/answers.jsonl": 0.15}, steps)
  config.reinforced = reinforce(2 if test else 20)
  students = ("answer_only", "distilled", "reinforced")
  config.evaluate = evaluate(students, count, 2 if test else 8)
  if test:
    config.update({"reinforced": {"rollout": {"problems": 2, "rows": 16}}})
    config.update({"evaluate": {"rows": 16}})
  config.stages = ("annotate_short", "annotate_long", *students, "evaluate")
  return config
