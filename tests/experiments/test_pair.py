"""Pairs of samples: what may be chosen, over what, and what is counted."""

import json

import pytest

from experiments import run
from research.types import Problem, Verdict
from tests.experiments import tiny

HERE = "tests.experiments.test_pair"
VALUES = {"right": 1.0, "fine": 0.8, "half": 0.5, "wrong": 0.0, "slow": 0.0}


def problems(split, seed, *, names="abcde"):
  del split, seed
  for name in names:
    yield Problem(f"{name}?", "", {"key": name, "difficulty": 1})


def reward(problem, text):
  """By the text's first word; "broken" is none that the grader knows."""
  del problem
  word = text.split()[0]
  kind = "correct" if word in ("right", "fine") else "wrong"
  kind = {"slow": "timeout", "broken": "error"}.get(word, kind)
  return Verdict(kind, VALUES.get(word))


def stage(**changes):
  c = tiny.get_config("distil").to_dict()
  fields = {
    "stage": "experiments.stages.pair",
    "problems": {"task": HERE, "split": "train", "args": {}},
    "count": 4,
    "suited": "{annotate}/traces.jsonl",
    "others": ["{annotate}/dropped.jsonl"],
  }
  c["paired"] = fields | changes
  c["stages"] = ("annotate", "distilled", "paired")
  return run.plan(c)["paired"]


KEPT = {"a": ["right 1", "right 2 2"], "b": ["right 3"], "c": ["right 4"]}
DROPPED = {
  "a": ["wrong 1", "half 2", "fine 3"],
  "b": ["right 3", "broken", "slow"],
  "c": ["wrong 4 4 4", None, " "],
}


@pytest.fixture
def made(tmp_path):
  """made(kept, dropped, **changes): what the stage told, and its pairs."""

  def make(kept=KEPT, dropped=DROPPED, **changes):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    (folder / "annotate").mkdir(parents=True)
    for name, texts in (("traces", kept), ("dropped", dropped)):
      lines = [
        json.dumps({"prompt": "-", "key": key, "completion": text}) + "\n"
        for key, said in texts.items()
        for text in said
      ]
      (folder / "annotate" / f"{name}.jsonl").write_text("".join(lines))
    module, config = stage(**changes)
    inputs = {"annotate": {"folder": str(folder / "annotate")}}
    told = module.run(config, inputs, folder)
    written = (folder / "pairs.jsonl").read_text().splitlines()
    return told, [json.loads(line) for line in written]

  return make


def sides(rows):
  return [(r["key"], r["gap"], r["chosen"], r["rejected"]) for r in rows]


def test_best_against_worst_by_gap(made):
  told, rows = made()
  assert sides(rows) == [
    ("a", "small", "right 1", "fine 3"),
    ("a", "medium", "fine 3", "wrong 1"),
    ("a", "large", "right 1", "wrong 1"),
    ("c", "large", "right 4", "wrong 4 4 4"),
  ]
  assert {row["prompt"] for row in rows} == {"a?", "c?"}
  assert told == {
    "asked": 4,
    "sampled": 3,
    "unread": 2,
    "ungraded": 2,
    "one_kind": 1,  # b: its wrong ones were never graded
    "pairs": {"small": 1, "medium": 1, "large": 2},
  }


def test_only_what_is_right_is_chosen(made):
  """Even where no gate was there to drop what is wrong."""
  _, rows = made({"a": ["wrong", "half", "right"]}, {"a": ["half 2", "fine"]})
  assert len(rows) == 3
  assert all(reward(None, r["chosen"]).kind == "correct" for r in rows)
  assert not any(r["rejected"] in ("broken", "slow") for r in rows)


def test_a_grader_that_failed_found_nothing_wrong(made):
  with pytest.raises(ValueError, match=r"no pair can be made.*'ungraded': 2"):
    made({"b": ["right"]}, {"b": ["broken", "slow"]})


def test_more_of_each(made):
  _, rows = made(each=2, gaps=["large"])
  assert sides(rows) == [
    ("a", "large", "right 1", "wrong 1"),
    ("a", "large", "right 2 2", "half 2"),
    ("c", "large", "right 4", "wrong 4 4 4"),
  ]


def test_a_margin(made):
  _, rows = made(margin=0.9)
  assert {gap for _, gap, _, _ in sides(rows)} == {"large"}
  _, rows = made(margin=0.8)
  assert {gap for _, gap, _, _ in sides(rows)} == {"medium", "large"}


def test_length_costs(made):
  """The longer of two that are right is the worse, and so of the wrong."""
  kept = {"a": ["right so long", "right"]}
  dropped = {"a": ["wrong", "wrong so long"]}
  plain, paid = (made(kept, dropped, cost=c)[1] for c in (0, 0.01))
  assert sides(plain) == [("a", "large", "right so long", "wrong")]
  assert sides(paid) == [("a", "large", "right", "wrong so long")]


@pytest.mark.parametrize(
  "changes",
  [
    {"suited": "{annotate}/dropped.jsonl"},
    {"others": []},
    {"gaps": ["large"]},
    {"each": 2},
    {"cost": 0.01},  # what is dropped of `a` is shorter
    {"margin": 0.5},
    {"count": 5},
    {"problems": {"task": HERE, "split": "train", "args": {"names": "acb"}}},
  ],
)
def test_no_field_is_dead(made, changes):
  kept = {"a": ["right so long", "right", "wrong"], "c": ["right"]}
  dropped = {"a": ["fine", "wrong so long", "half"], "c": ["wrong", "right c"]}
  assert made(kept, dropped, **changes) != made(kept, dropped)


@pytest.mark.parametrize(
  ("kept", "dropped", "said"),
  [
    ({"z": ["right"]}, {}, r"traces.jsonl:1: 'z' is none of the 4 problems"),
    ({"a": ["right"]}, {"a": ["right"]}, r"'one_kind': 1"),
    ({}, {}, "no pair can be made: .*'sampled': 0"),
  ],
)
def test_nothing_to_prefer(made, kept, dropped, said):
  with pytest.raises(ValueError, match=said):
    made(kept, dropped)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"count": 0}, "at least 1 of each"),
    ({"each": 0}, "at least 1 of each"),
    ({"gaps": []}, "at least 1 of each"),
    ({"gaps": ["huge"]}, "config.paired.gaps"),
    ({"cost": -1.0}, "a length is no merit"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)
