"""Distilling step by step, on StrategyQA with the rationales of people.

Hypothesis. None about accuracy: this shows that the two tasks run end to end on
real text. A student of 0.6 M bytes-reading parameters from scratch knows none
of what these questions ask for, so both students should stay near the share of
the commoner answer; what can differ is what a held-out label costs.

Command.  python -m experiments.run --workdir=runs/step_by_step \
            --config=experiments/configs/step_by_step.py --config.data_dir=DIR
          DIR holds cot_tasks/strategy_qa.json, of itsnamgyu/reasoning-teacher.
Expected. pass@1 of both about 0.6: of 220 held-out answers 138 are no.
Cost.     About 8 minutes of one CPU core.
Source.   Hsieh et al. 2023 (2305.02301): L = alpha L_label + (1 - alpha)
          L_rationale, alpha = 0.5, each the mean over a target's tokens, the
          task named by a prefix; T5 of 220 to 770 M, 5e-5, batch 64, at most
          10,000 steps. The label-only student is its standard fine-tuning.
"""

from ml_collections import ConfigDict

TASK = "research.tasks.strategy_qa"
ALPHA = 0.5


def annotate(problems, count, gates):
  """What people wrote on `count` questions."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems,
    "count": count,
    "teacher": "research.teachers.solver",
    "gates": gates,
  }


def distill(scales, steps):
  """A student on corpora, {stage: how much a record of it counts}."""
  corpora = [
    {"path": f"{{{stage}}}/traces.jsonl", "scale": scale, "per": "record"}
    for stage, scale in scales.items()
  ]
  return {
    "stage": "experiments.stages.distill",
    "corpora": corpora,
    "loss": {"name": "research.losses.supervised", "args": {"block": 2048}},
    "rows": 4,
    "length": 512,
    "shards": 4,
    "optimizer": {"learning_rate": 1e-3, "warmup": 20, "floor": 0.1},
    "loop": {"steps": steps, "save_every": 100},
  }


def measure(students, problems, test):
  """Accuracy on held-out questions, and what their labels cost."""
  suite = {
    "prefix": "",
    "problems": problems,
    "count": 16 if test else 1000,
    "new_tokens": 16,
  }
  evaluate = {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [suite],
    "samples": 1,
    "ks": [1],
    "pairs": [students[::-1]],
    "rows": 16 if test else 128,
    "temperature": 0.0,
  }
  score = {
    "stage": "experiments.stages.score",
    "students": students,
    "corpus": "{held_out}/traces.jsonl",
    "rows": 16,
    "length": 192,
    "pairs": [students[::-1]],
  }
  return evaluate, score


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "test" shrinks it to seconds, on the real file."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.data_dir = ""  # or the environment variable PITH_DATA
  config.tokenizer = "bytes"
  width, layers = (32, 1) if test else (128, 3)
  shape = {"width": width, "layers": layers, "context": 768}
  config.model = {"preset": "tiny", **shape}
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}

  def problems(split, ask):
    args = {"ask": ask, "data_dir": config.get_ref("data_dir")}
    return {"task": TASK, "split": split, "args": ConfigDict(args)}

  count, verify = 64 if test else 5000, {"name": "research.annotation.verify"}
  config.labels = annotate(problems("train", "label"), count, [verify])
  config.rationales = annotate(problems("train", "rationale"), count, [])
  config.held_out = annotate(problems("test", "label"), count, [verify])
  steps = 2 if test else 400
  config.label_only = distill({"labels": 1.0}, steps)
  mixture = {"labels": ALPHA, "rationales": 1 - ALPHA}
  config.step_by_step = distill(mixture, steps)
  students = ("label_only", "step_by_step")
  asked = problems("test", "label")
  config.evaluate, config.score = measure(students, asked, test)
  corpora = ("labels", "rationales", "held_out")
  config.stages = (*corpora, *students, "evaluate", "score")
  return config
