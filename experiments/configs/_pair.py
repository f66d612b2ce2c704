"""A pair on long multiplication, and the stages of recipes that compare on it.

The teacher is experiments/configs/multiplication_teacher.py's, 4.6 M parameters
trained once; the student has 0.6 M and begins anew under every seed.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import multiplication_teacher

LENGTH = multiplication_teacher.LENGTH
NEW_TOKENS = multiplication_teacher.NEW_TOKENS
TEACHER = "runs/multiplication_teacher/export/checkpoint"
# What a line of the scratchpad does behind its digit and before its row.
DETAIL = r"(?<=:)[^>\n]*(?=>)|^[^:>\n]*(?=>)"

problems = multiplication_teacher.problems


def base(arg: str, **shape: int) -> ConfigDict:
  """A run of the student, `shape` its own, without any stages yet."""
  test = arg == "test"
  config = ConfigDict()
  config.seed = 0
  config.tokenizer = "bytes"
  size = {"width": 32, "layers": 1} if test else {"width": 128, "layers": 3}
  config.model = {"preset": "tiny"} | size | shape
  config.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  return config


def teacher(test: bool) -> dict[str, Any]:
  """The frozen teacher; a test, which has none at hand, trains one."""
  if test:
    return distill({"{annotate}/traces.jsonl": 1}, 4, test)
  return {"stage": "experiments.stages.checkpoint", "directory": TEACHER}


def annotate(test: bool, count: int = 20_000, **rest: Any) -> dict[str, Any]:
  """Worked products; `answers.jsonl` holds their answers alone."""
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems("train"),
    "count": 64 if test else count,
    "teacher": "research.teachers.solver",
  } | rest


def distill(
  corpora: dict[str, float], steps: int, test: bool, **rest: Any
) -> dict[str, Any]:
  """The student on a mixture of written texts, {path: weight}."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [{"path": p, "weight": w} for p, w in corpora.items()],
    "loss": {"name": "research.losses.supervised", "args": {"block": 2048}},
    "rows": 4 if test else 16,
    "length": LENGTH,
    "shards": 2,
    "optimizer": {"learning_rate": 3e-3, "warmup": 20, "floor": 0.05},
    "loop": {"steps": min(steps, 4) if test else steps, "save_every": 100},
  } | rest


def export(student: str) -> dict[str, Any]:
  """A student as a checkpoint that teachers read."""
  stage = "experiments.stages.export"
  return {"stage": stage, "student": student, "dtype": "float32"}


def asked(
  exported: str, new_tokens: int, rows: int, temperature: float = 1.0
) -> dict[str, Any]:
  """What a teacher that this run exported is asked with."""
  told = {"directory": f"{{{exported}}}/checkpoint", "new_tokens": new_tokens}
  return told | {"rows": rows, "temperature": temperature, "top_p": 1.0}


def evaluate(
  test: bool,
  students: tuple[str, ...],
  pairs: tuple[tuple[str, str], ...],
  samples: int = 1,
  **rest: Any,
) -> dict[str, Any]:
  """All students on products that no one has seen; `rest` is the suite's.

  Of several `samples` a problem it is also told whether any is right; a test
  has one.
  """
  several = samples > 1 and not test
  return {
    "stage": "experiments.stages.evaluate",
    "students": students,
    "suites": [
      {
        "prefix": "",
        "problems": problems("test"),
        "count": 8 if test else 512,
        "new_tokens": NEW_TOKENS,
      }
      | rest
    ],
    "samples": samples if several else 1,
    "ks": [1, samples] if several else [1],
    "pairs": pairs,
    "rows": 8 if test else 256,
  }
