"""The stage reads earlier stages' summaries, and says what was forgotten."""

import pytest

from experiments import run
from research.evaluation import intervals
from tests.experiments import tiny

LINES = [["base", "tuned", "doctor"], ["base", "tuned", "nurse"]]
NATS = {"base": 3.0, "tuned": 2.0, "doctor": 2.5, "nurse": 1.5}


def stage(**changes):
  c = tiny.get_config("distil").to_dict()
  counted = {"stage": "tests.experiments.counted", "ends": "well"}
  students = dict.fromkeys(NATS, counted)
  about = {"stage": "experiments.stages.forget", "orders": LINES}
  c = {name: c[name] for name in ("seed", "tokenizer", "model", "mesh")}
  c |= students | {"forget": about | {"columns": ["home/nats"]} | changes}
  return run.plan(c | {"stages": (*students, "forget")})["forget"]


def summaries():
  values = lambda name: {str(i): NATS[name] + i / 8 for i in range(4)}
  lines = {
    f"home/{name}/nats": intervals.bootstrap(values(name), seed=0)
    for name in NATS
  }
  for left in ("doctor", "nurse"):
    for right in ("base", "tuned"):
      told = intervals.paired(values(left), values(right), seed=0)
      lines[f"home/{left}_minus_{right}/nats"] = told
  return lines


def test_each_line_of_training_has_its_own_last_student(tmp_path):
  module, config = stage()
  lines = list(summaries().items())
  inputs = {  # in two stages, and one that has none
    "one": {"folder": "x", "summary": dict(lines[:3])},
    "two": {"folder": "x", "summary": dict(lines[3:])},
    "three": {"folder": "x"},
  }
  done = module.run(config, inputs, tmp_path)
  means = {name: value["mean"] for name, value in done["summary"].items()}
  assert means == {
    "home/doctor/nats_gain": -0.5,
    "home/doctor/nats_forgetting": 0.5,
    "home/nurse/nats_gain": 0.5,
    "home/nurse/nats_forgetting": -0.5,
  }
  assert done["best"] == {
    "home/doctor/nats": "tuned",
    "home/nurse/nats": "tuned",
  }
  png = (tmp_path / "forgetting.png").read_bytes()
  assert png.startswith(b"\x89PNG")
  del inputs["two"]
  with pytest.raises(ValueError, match="the summary has no 'home/nurse/nats'"):
    stage(orders=LINES[1:])[0].run(stage(orders=LINES[1:])[1], inputs, tmp_path)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"orders": [["base"]]}, "no line of different students"),
    ({"orders": [["base", "base"]]}, "no line of different students"),
    ({"orders": []}, "are wanted"),
    ({"columns": []}, "are wanted"),
    ({"orders": [["base", "nobody"]]}, "'nobody', which does not run before"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)
