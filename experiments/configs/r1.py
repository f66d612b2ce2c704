"""R1's four stages: a cold start, reinforcement, its own best answers, more.

    base -> cold: long chains of thought, a few thousand
         -> first: reinforcement by accuracy and one language
    base -> second: what the first wrote and was right, in one language
         -> student: reinforcement again, cooler

Hypothesis. H1 The pipeline beats reinforcement alone, from the same base and by
            as many sampled answers, though not tokens: student - alone > 0.05.
            H2 The cold start is what makes it: alone stays at answers without
            working, at a tenth of the tokens.
            H3 A base taught by the first's right answers is no worse than the
            first: second - first within 0.05 of 0.
Command.  python -m experiments.seeds --workdir=runs/r1 --seeds=0,1,2 \
            --config=experiments/configs/r1.py:small \
            --out=experiments/results/reinforcement/r1.md
          or, from Qwen/Qwen2.5-1.5B in the place of DeepSeek-V3-Base, on GSM8K
          and, beside it under config.data_dir, long chains in chains.jsonl,
          python -m experiments.run --config=experiments/configs/r1.py \
            --workdir=runs/r1 --config.base.directory=DIR \
            --config.data_dir=DIR
Expected. Published, at 671 B: AIME24 79.8, MATH-500 97.3. Not run here; of
          `:small` see experiments/results/reinforcement.md.
Cost.     `:small`: a quarter of an hour of a core a seed; `:test`: a minute.
Source.   DeepSeek-AI 2025 (2501.12948), as transcribed. Cold start: 2 epochs,
          5e-5 to a tenth, 128 rows. First: as R1-Zero, clip 10 (one
          transcription says 0.2), language consistency. Second: 600k of 800k
          examples are its own. Last: T 0.7, 1,700 steps; the preference rewards
          of its last 400 and data without a verifier are not here. `:small`
          has countdown, whose working is a search, and 400 searches to begin;
          it is all in one language, and sampled at T 1 as it is measured.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import _pair, _zero

ANSWER, ROOM = 192, 256  # tokens of a search, and with its prompt
GROUP, PROBLEMS, SAMPLED = 8, 12, 4000
FIRST, LAST = 30, 15  # steps; `alone` has as many answers as all three
ALONE = FIRST + LAST + SAMPLED // (GROUP * PROBLEMS)
LANGUAGE = {"name": "research.rewards.language", "weight": 1.0}


def reinforce(
  start: str, steps: int, rollout: dict[str, Any], rate: float, **rest: Any
) -> dict[str, Any]:
  """One stage of reinforcement."""
  return {
    "stage": "experiments.stages.reinforce",
    "start": start,
    "pool": 7473,
    "rollout": rollout,
    "algorithm": {
      "name": "research.algorithms.grpo",
      "args": {
        "aggregate": "sequence",
        "clip_low": 1.0,
        "clip_high": 10.0,
        "beta": 1e-3,
      },
    },
    "advantage": {},
    "before": "trainer",
    "optimizer": {"learning_rate": rate, "schedule": "constant"},
    "loop": {"steps": steps, "save_every": 20},
  } | rest


def sample(
  problems: dict[str, Any], count: int, samples: int, new_tokens: int, rows: int
) -> dict[str, Any]:
  """What the first student writes, where it is right and in one language."""
  gates = [
    {"name": "research.annotation.verify"},
    {"name": "research.annotation.language"},
  ]
  return {
    "stage": "experiments.stages.annotate",
    "problems": problems,
    "count": count,
    "samples": samples,
    "teacher": "research.teachers.checkpoint",
    "args": _pair.asked("exported", new_tokens, rows),
    "gates": gates,
  }


def read(path: Any, steps: int) -> dict[str, Any]:
  """The base on long chains of thought."""
  return {
    "stage": "experiments.stages.distill",
    "corpora": [ConfigDict({"path": path})],
    "loss": {"name": "research.losses.supervised", "args": {}},
    "rows": 128,
    "length": 32_768,
    "shards": 8,
    "microbatches": 16,
    "optimizer": {"learning_rate": 5e-5, "floor": 0.1},
    "loop": {"steps": steps, "save_every": 50},
    "start": "base",
  }


def published() -> ConfigDict:
  """The pipeline from a checkpoint, on GSM8K."""
  config = _zero.published("qwen2_5_1_5b", [(32_768, 16, 650)])
  args = {"args": ConfigDict({"data_dir": config.get_ref("data_dir")})}
  train, test = args | _zero.GSM8K.train, args | _zero.GSM8K.test
  shape = {"problems": 512, "group": 16, "new_tokens": 32_768, "rows": 64}
  shape |= {"length": _zero.PROMPT + 32_768}
  usual = {"problems": train, "minibatches": 16, "microbatches": 8}
  usual |= {"refresh": 25}
  clean = shape | {"bonuses": (LANGUAGE,)}
  cool = shape | {"temperature": 0.7}
  chains = config.get_ref("data_dir") + "/chains.jsonl"
  stages = {
    "cold": read(chains, 100),
    "first": reinforce("cold", 650, clean, 3e-6, **usual),
    "exported": _pair.export("first"),
    "sampled": sample(train, 7473, 16, 32_768, 64),
    "second": read("{sampled}/traces.jsonl", 400),
    "student": reinforce("second", 106, cool, 3e-6, **usual),
  }
  config.update(stages)
  students = ("base", "cold", "first", "second", "student")
  source = _zero.Source(train, test, 1319)
  config.evaluate = _zero.evaluate("", students, source, 32_768)
  config.stages = ("base", *stages, "evaluate")
  return config


def learned(test: bool, problems: dict[str, Any]) -> dict[str, Any]:
  """What is taught and sampled in the small form, stage by stage."""
  room = {"new_tokens": 8 if test else ANSWER, "length": ROOM}
  shape = {"problems": 2 if test else PROBLEMS, "group": GROUP} | room
  shape |= {"rows": 16 if test else GROUP * PROBLEMS}
  usual = {"problems": problems, "minibatches": 1 if test else 2}
  learn = lambda start, steps, **more: reinforce(
    start, 2 if test else steps, shape | more, 1e-4, refresh=20, **usual
  )
  follow = lambda path, steps: _pair.distill(
    {path: 1.0}, steps, test, length=ROOM, rows=8, start="base"
  )
  count, rows = (8, 8) if test else (SAMPLED // 4, 250)
  sampled = sample(problems, count, 4, ANSWER, rows)
  if test:  # nothing that it says is right
    sampled["gates"] = []
  return {
    "written": _pair.annotate(test, 400, problems=problems),
    "cold": follow("{written}/traces.jsonl", 150),
    "first": learn("cold", FIRST),
    "exported": _pair.export("first"),
    "sampled": sampled,
    "second": follow("{sampled}/traces.jsonl", 300),
    "student": learn("second", LAST),
    "alone": learn("base", ALONE),
  }


def small(test: bool) -> ConfigDict:
  """The pipeline and reinforcement alone, on countdown."""
  config = _pair.base("test" if test else "", context=ROOM)
  train, answers = _zero.countdown("train"), {"{annotate}/answers.jsonl": 1.0}
  stages = {
    "annotate": _pair.annotate(test, problems=train),
    "base": _pair.distill(answers, 300, test, length=64),
  } | learned(test, train)
  config.update(stages)
  config.evaluate = _pair.evaluate(
    test,
    ("base", "cold", "first", "second", "student", "alone"),
    (("student", "alone"), ("second", "first"), ("first", "cold")),
    samples=4,
    problems=_zero.countdown("test"),
    count=8 if test else _zero.HELD_OUT,
    new_tokens=8 if test else ANSWER,
  )
  config.stages = (*stages, "evaluate")
  return config


def get_config(arg: str = "") -> ConfigDict:
  """Returns the recipe; "small" fits it to two cores, "test" to seconds."""
  return small(arg == "test") if arg in ("small", "test") else published()
