"""A run as it lies on disk, with curves, samples and text meant to break out.

Everything is drawn from a fixed seed, so a report of it can be compared.
"""

import functools
import json
import math
from pathlib import Path

import numpy as np

from research.evaluation.measure import compare, measure

HOSTILE = (
  "</script><img src=x onerror=\"document.title='broken out'\">",
  "<!--<script>",
  "]]> &amp; ' \" \\u003c é 数 \ud800",
)
STUDENTS = {"answer_only": -2.2, "distilled": 2.0, "reinforced": 2.6}


def lines(path: Path, records: list[dict]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(record) + "\n" for record in records))


def table(student: str, shift: float, count: int, k: int = 8) -> list[dict]:
  """A table of samples: problems differ in difficulty, samples in luck."""
  hard = np.random.default_rng(7).normal(size=count) * 1.3
  rng = np.random.default_rng(len(student))
  records = []
  for problem in range(count):
    chance = 1 / (1 + math.exp(hard[problem] - STUDENTS[student] + shift))
    for sample in range(k):
      right, parsed = rng.random() < chance, rng.random() < 0.97
      kind = "correct" if right else "wrong"
      answer = problem if right else int(rng.integers(5))
      steps = int(rng.integers(2, 6)) if student != "answer_only" else 1
      records.append(
        {
          "problem": f"{problem} + 1",
          "sample": sample,
          "completion": "\n".join(f"step {s}: {problem}" for s in range(steps)),
          "answer": str(answer) if parsed else None,
          "verdict": kind if parsed else "unparsed",
          "lenient": kind,
          "tokens": 14 * steps + int(rng.integers(8)),
          "truncated": bool(rng.random() < 0.02),
        }
      )
  return records


@functools.cache
def summary(count: int = 60) -> dict:
  """A summary with three students on two suites and a paired difference."""
  found: dict = {}
  tables = {}
  for suite, shift in (("", 0.0), ("hard/", 2.1)):
    for student in STUDENTS:
      tables[suite, student] = table(student, shift, count)
      measured = measure(tables[suite, student], (2, 4, 8), seed=0)
      found |= {f"{suite}{student}/{name}": v for name, v in measured.items()}
  sides = tables["hard/", "reinforced"], tables["hard/", "distilled"]
  for metric, value in compare(*sides, seed=0).items():
    found[f"hard/reinforced_minus_distilled/{metric}"] = value
  return found | {"wall_seconds": 512.4, "parameters": 651_264}


def metrics(steps: int, seed: int, *, rollouts: bool) -> list[dict]:
  """Curves with noise; the twentieth loss is not a number."""
  rng = np.random.default_rng(seed)
  noise = lambda size: float(rng.normal() * size)
  records = []
  for step in range(steps):
    done = step / steps
    record = {
      "step": step,
      "loss": 0.25 + 3.1 * math.exp(-7 * done) + noise(0.06),
      "grad_norm": 0.6 + math.exp(-4 * done) + abs(noise(0.2)),
      "learning_rate": 1e-3 * min(1, 20 * done) * (1 - 0.9 * done),
      "tokens_per_second": 12_000 + noise(300),
    }
    if rollouts:
      record["reward/mean"] = 0.35 + 0.3 * (1 - math.exp(-3 * done))
      record["reward/mean"] += noise(0.03)
      record["reward/zero_variance"] = 0.3 + 0.3 * done + noise(0.05)
      record["entropy"] = 0.4 * math.exp(-done) + noise(0.012)
      record["length/mean"] = 48 + 15 * done + noise(1.5)
    records.append(record)
  records[min(19, steps - 1)]["loss"] = math.nan
  return records


def rollouts(count: int, group: int = 8, per_step: int = 64) -> list[dict]:
  """Logged samples, the first few of them hostile."""
  rng = np.random.default_rng(3)
  records = []
  for at in range(count):
    step, a, b = at // per_step, at // group % 90 + 10, at // group % 37 + 3
    u = rng.random()
    right = u < 0.35 + 0.5 * at / count
    verdict = "correct" if right else "unparsed" if u > 0.97 else "wrong"
    value = a * b if right else a * b + int(rng.integers(1, 40))
    worked = "\n".join(f"{a} x {d} = {a * d}" for d in range(1, b % 7 + 2))
    records.append(
      {
        "step": step,
        "group": at // group,
        "prompt": f"What is {a} x {b}? Work step by step.",
        "completion": f"{worked}\nanswer: {value}",
        "reward": float(right),
        "verdict": verdict,
        "tokens": len(worked) + 12,
      }
    )
  for at, text in enumerate(HOSTILE[:count]):
    records[at]["completion"] = text
  return records


def make_run(folder: Path, *, samples: int = 300, steps: int = 40) -> Path:
  """Writes a whole workdir: summary, three stages, rollouts and samples."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "summary.json").write_text(json.dumps(summary()))
  lines(folder / "pretrain/metrics.jsonl", metrics(steps, 0, rollouts=False))
  lines(folder / "distill/metrics.jsonl", metrics(steps, 1, rollouts=False))
  lines(folder / "reinforce/metrics.jsonl", metrics(steps, 2, rollouts=True))
  half = samples // 2
  logged = rollouts(samples)
  lines(folder / "reinforce/rollouts/2.jsonl", logged[:half])
  lines(folder / "reinforce/rollouts/10.jsonl", logged[half:])
  graded = table("distilled", 0.0, 20)
  extra = {"suite": "hard", "student": "distilled"}
  lines(folder / "evaluate/samples/hard.jsonl", [s | extra for s in graded])
  (folder / "checkpoints").mkdir(exist_ok=True)
  return folder
