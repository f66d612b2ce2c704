"""Lessons for a critic, and what gates let through, counted by hand."""

import itertools
import json

import pytest

from experiments import run
from research.tasks import multiplication
from tests.experiments import tiny

DIGITS = {"digits": [[2, 1]]}
ASKED = {"task": "research.tasks.multiplication", "split": "train"} | {
  "args": DIGITS
}
SEED = 3


def problems(count):
  drawn = multiplication.problems("train", SEED, ((2, 1),))
  return list(itertools.islice(drawn, count))


def stage(kind, **fields):
  c = tiny.get_config("distil").to_dict()
  counted = {"stage": "tests.experiments.counted", "ends": "well"}
  c = {name: c[name] for name in ("tokenizer", "model", "mesh")} | {
    "seed": SEED,
    "one": counted,
    "two": counted,
    "stages": ("one", "two", kind),
    kind: {"stage": f"experiments.stages.{kind}", "problems": ASKED} | fields,
  }
  return run.plan(c)[kind]


def written(folder, texts):
  """A stage's folder with traces, [(problem, text)]; what it handed on."""
  folder.mkdir()
  rows = [{"key": p.meta["key"], "completion": text} for p, text in texts]
  rows = [{"prompt": "?"} | row for row in rows]
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "traces.jsonl").write_text(lines)
  return {"folder": str(folder)}


def variants(problem):
  """Sound; right by luck, a step wrong; wrong."""
  text = multiplication.trace(problem, 0)
  line, _, answer = text.partition("\n")
  return text, f"{line}0\n{answer}", text + "1"


def test_what_gates_let_through(tmp_path):
  asked = problems(4)
  sound, lucky, _ = variants(asked[0])
  other, _, wrong = variants(asked[1])
  inputs = {
    "one": written(
      tmp_path / "1",
      [(asked[0], sound), (asked[0], lucky), (asked[1], wrong)],
    ),
    "two": written(tmp_path / "2", [(asked[1], other)]),
  }
  fields = {"count": 4, "kept": ["one", "two"], "pairs": [["one", "two"]]}
  module, config = stage("audit", **fields)
  told = module.run(config, inputs, tmp_path)
  means = {name: value["mean"] for name, value in told["summary"].items()}
  assert told["asked"] == 4 and means == {
    "one/yield": 0.5,
    "one/right": 0.5,
    "one/sound": 0.25,
    "two/yield": 0.25,
    "two/right": 1.0,
    "two/sound": 1.0,
    "one_minus_two/yield": 0.25,
  }


def test_an_audit_of_what_was_not_sifted():
  with pytest.raises(ValueError, match="not two of"):
    stage("audit", count=4, kept=["one"], pairs=[["one", "two"]])


def test_wrong_attempts_become_lessons(tmp_path):
  first, second = problems(2)
  attempts = [(first, variants(first)[0]), (second, variants(second)[2])]
  inputs = {"one": written(tmp_path / "1", attempts)}
  fields = {"count": 2, "attempts": "{one}/traces.jsonl"}
  module, config = stage("correct", **fields)
  assert module.run(config, inputs, tmp_path) == {"attempts": 2, "wrong": 1}
  lines = (tmp_path / "lessons.jsonl").read_text().splitlines()
  checked, told = (json.loads(line)["messages"] for line in lines)
  right = variants(second)[0]
  assert [m["role"] for m in checked] == ["user", "assistant"] * 2
  assert checked[-1]["content"] == told[-1]["content"] == right
  mended = right.splitlines()[-1]
  assert checked[1]["content"].endswith(f"line 2, which should be:\n{mended}")
  assert told[0]["content"].endswith(f"ends with:\n{mended}")


@pytest.mark.parametrize(
  "count, which, match", [(1, 2, "is none of the 1"), (2, 0, "none of 1 is")]
)
def test_lessons_that_cannot_be(tmp_path, count, which, match):
  last = problems(2)[-1]
  inputs = {"one": written(tmp_path / "1", [(last, variants(last)[which])])}
  fields = {"count": count, "attempts": "{one}/traces.jsonl"}
  module, config = stage("correct", **fields)
  with pytest.raises(ValueError, match=match):
    module.run(config, inputs, tmp_path)
  assert not (tmp_path / "lessons.jsonl").exists()
