"""An environment's own player, and a student that learns from it."""

import json

import pytest

from experiments import run
from research.data import jsonl, text
from tests.experiments import tiny

PROBLEMS = {
  "task": "research.environments.calculator",
  "split": "train",
  "args": {"lengths": [1, 1]},
}


def stage(player=None, **changes):
  """The stage behind a student that was trained on its conversations."""
  c = tiny.get_config("distil").to_dict()
  for name in ("distilled", "annotate"):
    del c[name]
  about = {"stage": "experiments.stages.play", "problems": PROBLEMS, "count": 6}
  c["shown"] = dict(about)
  c["student"] = tiny.get_config().to_dict()["answer_only"] | {
    "corpora": [{"path": "{shown}/episodes.jsonl"}],
    "teacher": None,
    "loop": {"steps": 2, "save_every": 2, "keep": 2, "best": None},
  }
  limits = {"turns": 2, "new_tokens": 12, "length": 96, "rows": 4}
  c["played"] = about | limits | {"player": player} | changes
  c["stages"] = ("shown", "student", "played")
  return run.plan(c)


def perform(plan, names, folder):
  done = {}
  for name in names:
    module, config = plan[name]
    (folder / name).mkdir()
    told = module.run(config, dict(done), folder / name)
    done[name] = told | {"folder": str(folder / name)}
  return done


def test_its_own_player_writes_what_a_student_can_read(tmp_path):
  done = perform(stage(), ("shown",), tmp_path)["shown"]
  assert done["summary"]["shown/reward"]["mean"] == 1.0
  assert done["summary"]["shown/excluded"] == 0 and done["episodes"] == 6
  records = jsonl.read(tmp_path / "shown" / "episodes.jsonl")
  for record in records:
    said = [m["content"] for m in record["messages"]]
    assert len(said) == 4 and said[1] == f"calc {said[0]}"
    learned = text.example(text.load_tokenizer("bytes"), record)
    mine = [int(i) for i in learned["tokens"][learned["mask"] > 0] if i < 256]
    assert bytes(mine).decode() == said[1] + said[3]


def test_a_student_plays(tmp_path):
  plan = stage(player="student")
  done = perform(plan, ("shown", "student", "played"), tmp_path)["played"]
  summary = done["summary"]
  assert summary["student/reward"]["n"] == 6
  assert {"student/calls", "student/failed", "student/truncated"} <= set(
    summary
  )
  lines = (tmp_path / "played" / "episodes.jsonl").read_text().splitlines()
  assert len(lines) == 6 and all(json.loads(x)["tokens"] > 0 for x in lines)


@pytest.mark.parametrize(
  "wrong, match",
  [
    ({"turns": 0}, "at least 1"),
    ({"length": 2000}, "longer than the model's context"),
  ],
)
def test_what_cannot_be_played(wrong, match):
  with pytest.raises(ValueError, match=match):
    stage(player="student", **wrong)
