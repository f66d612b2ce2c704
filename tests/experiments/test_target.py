"""Fresh problems where a ledger falls short, counted by hand."""

import dataclasses
import itertools
import json

import pytest

from experiments import pools, run
from experiments.ablations import weakness
from research.types import Problem
from tests.experiments import tiny

HERE = "tests.experiments.test_target"


def problems(split, seed, *, skills="abc", begin=0):
  """a0 b0 c0 a1 b1 c1 ..., the first letter being the skill."""
  del split, seed
  for i in itertools.count(begin):
    for name in skills:
      meta = {"key": f"{name}{i}", "difficulty": i % 2}
      yield Problem(f"{name}{i}?", "1", meta)


def skill(problem):
  return problem.prompt[0]


def asked(**args):
  return {"task": HERE, "split": "train", "args": args}


def stage(**changes):
  c = tiny.get_config("distil").to_dict()
  fields = {
    "stage": "experiments.stages.target",
    "first": "distilled",
    "problems": asked(),
    "pool": 12,
    "fresh": asked(),
    "candidates": 60,
    "count": 12,
  }
  c["aimed"] = fields | changes
  c["stages"] = ("annotate", "distilled", "aimed")
  return run.plan(c)["aimed"]


# A key, and how many of four answers to it are right, visit by visit.
VISITS = {
  "a0": (2, 3),  # solved
  "a1": (1, 0),  # weak
  "b0": (1, 0),  # weak
  "b1": (1, 0),  # weak
  "c0": (0, 0),  # out of reach
  "c1": (0, 1),  # it learns
}


def record(key, step, right):
  told = {"key": key, "step": step, "prompt": f"{key}?", "completion": "1"}
  kind, value = ("correct", 1.0) if right else ("wrong", 0.0)
  return told | {"verdict": kind, "reward": value}


def records(visits):
  return [
    record(key, 5 * visit, i < right)
    for key, counts in visits.items()
    for visit, right in enumerate(counts)
    for i in range(4)
  ]


@pytest.fixture
def made(tmp_path):
  """made(rows, **changes): outputs, the ledger, and keys that are written."""

  def make(rows=None, **changes):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    (folder / "rollouts").mkdir(parents=True)
    by_step = {}
    for row in records(VISITS) if rows is None else rows:
      by_step.setdefault(row["step"], []).append(json.dumps(row) + "\n")
    for step, lines in by_step.items():
      path = folder / "rollouts" / f"{step:06d}.jsonl"
      path.write_text("".join(lines))
    module, config = stage(**changes)
    told = module.run(config, {"distilled": {"folder": str(folder)}}, folder)
    ledger = json.loads((folder / "ledger.json").read_text())
    written = list(pools.read(str(folder / "problems.jsonl")))
    return told, ledger, [p.meta["key"] for p in written]

  return make


def by_skill(keys):
  return {s: sum(key[0] == s for key in keys) for s in "abc"}


def test_the_weak_get_new_problems(made):
  """One weak of two a, two of two b, none of c: 4, 8 and 0 of 12."""
  told, ledger, keys = made(every=5)
  assert by_skill(keys) == {"a": 4, "b": 8, "c": 0}
  assert told == {
    "answers": 48,
    "skills": 3,
    "weak": 1,
    "short": 2,
    "fresh": 48,  # of 60 candidates 12 were in the pool
    "written": 12,
    "summary": {"0_a": 4, "0_b": 8},
  }
  assert ledger["b"] == {
    "problems": 2,
    "answers": 16,
    "solved": 2,
    "curve": {"0": 0.25, "5": 0.0},
    "slope": -0.05,
    "weak": True,
    "short": 1.0,
    "fresh": 16,
    "targeted": 8,
    "written": 8,
  }


def test_what_is_wrong_at_last(made):
  """Of 8 last answers to each skill 3, 0 and 1 are right: 5, 8 and 7 of 20."""
  _, ledger, keys = made(by="wrong", every=5, count=20, candidates=99)
  assert by_skill(keys) == {"a": 5, "b": 8, "c": 7}
  assert [ledger[x]["short"] for x in "abc"] == [0.625, 1.0, 0.875]
  _, ledger, _ = made(by="wrong", every=10)
  assert ledger["a"]["short"] == 1 - 6 / 16, "an older answer is in no period"


def test_the_control_is_even_or_as_it_comes(made):
  assert by_skill(made(by="even")[2]) == dict.fromkeys("abc", 4)
  fresh = asked(skills="aac", begin=9)
  _, _, keys = made(share=0.0, fresh=fresh, count=10)
  assert keys == [f"{x}{i}" for i in range(9, 14) for x in "ac"]


def test_a_share_is_targeted_and_the_rest_comes_as_it_does(made):
  """Of 12 the first 6 as they come, two of each; then 2 of a and 4 of b."""
  _, ledger, keys = made(share=0.5)
  assert keys[:6] == ["a4", "b4", "c4", "a5", "b5", "c5"]
  assert by_skill(keys[6:]) == {"a": 2, "b": 4, "c": 0}
  assert [ledger[x]["targeted"] for x in "abc"] == [2, 4, 0]
  assert [ledger[x]["written"] for x in "abc"] == [4, 6, 2]


def test_what_came_anyway_is_not_there_to_be_aimed_at(made):
  """Of seven b three have come; the four that are left are not six."""
  rows = records({**VISITS, "a1": (2, 3)})
  fresh = asked(skills="ab", begin=9)
  _, ledger, keys = made(rows, fresh=fresh, candidates=14, share=0.5)
  assert [ledger[x]["targeted"] for x in "ab"] == [2, 4] and len(keys) == 12


@pytest.mark.parametrize("by", ["weak", "wrong", "even"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_nothing_was_met_before(made, by, share):
  held_out = {"problems": asked(begin=6), "count": 5}
  _, _, keys = made(by=by, share=share, held_out=[held_out])
  assert len(set(keys)) == len(keys) == 12
  met = {p.meta["key"] for p in itertools.islice(problems("", 0), 12)}
  held = {p.meta["key"] for p in itertools.islice(problems("", 0, begin=6), 5)}
  assert not {*keys} & (met | held)
  assert {*made(by=by, share=share)[2]} & held, "they would not have come"


def test_a_skill_that_runs_dry_leaves_its_part_to_the_others(made):
  fresh = asked(skills="aaaaabac", begin=9)
  _, ledger, keys = made(fresh=fresh, candidates=80, count=20)
  assert ledger["b"]["fresh"] == 10
  assert by_skill(keys) == {"a": 10, "b": 10, "c": 0}


def test_where_nothing_is_weak_all_is_even(made):
  told, _, keys = made(ceiling=0.1)
  assert told["short"] == 0 and by_skill(keys) == dict.fromkeys("abc", 4)


def test_what_was_hardly_met_falls_short_of_nothing(made):
  rows = records({**VISITS, "b2": (0, 0), "c2": (1, 0), "c3": (1, 0)})
  assert by_skill(made(rows)[2])["b"] > 0
  _, ledger, keys = made(rows, least=4)
  assert by_skill(keys) == {"a": 0, "b": 0, "c": 12}
  assert ledger["b"]["short"] == 0


def test_a_grader_that_failed_says_nothing(made):
  broken = [record("b0", 10, True) | {"reward": None, "verdict": "error"}]
  assert made(records(VISITS) + broken)[1:] == made()[1:]


def test_without_skills_difficulties_are_told_apart(made, monkeypatch):
  import tests.experiments.test_target as here

  monkeypatch.delattr(here, "skill")
  _, ledger, _ = made()
  assert set(ledger) == {"difficulty_0", "difficulty_1"}


def test_the_same_again(made):
  assert made()[1:] == made()[1:]


@pytest.mark.parametrize(
  "changes",
  [
    {"pool": 11},
    {"problems": asked(skills="abcd")},
    {"fresh": asked(begin=2)},
    {"candidates": 24},
    {"count": 9},
    {"by": "even"},
    {"share": 0.5},
    {"ceiling": 0.1},
    {"falling": -0.06},
    {"least": 3},
    {"every": 5},
    {"held_out": [{"problems": asked(begin=4), "count": 1}]},
  ],
)
def test_no_field_is_dead(made, changes):
  ours, theirs = made(**changes), made()
  assert (ours[0]["fresh"], *ours[1:]) != (theirs[0]["fresh"], *theirs[1:])


ONCE = [record(key, 0, False) for key in VISITS]


@pytest.mark.parametrize(
  ("rows", "changes", "said"),
  [
    ([], {}, "no rollouts with a graded answer"),
    ([record("a9", 0, True)], {}, "000000.jsonl:1: 'a9' is none of the 12"),
    ([{"step": 0}], {}, "000000.jsonl:1: `key` must be text"),
    (ONCE, {}, 'no problem was tried in two steps.*by="wrong"'),
    (None, {"count": 49}, "48 of 60 candidates are new, and 49 are wanted"),
  ],
)
def test_what_cannot_be(made, rows, changes, said):
  with pytest.raises(ValueError, match=said):
    made(rows, **changes)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"count": 0}, "at least 1"),
    ({"every": 0}, "at least 1"),
    ({"share": 1.5}, r"share 1.5 in \[0, 1\]"),
    ({"by": "strong"}, "config.aimed.by"),
    ({"first": "later"}, "speaks of the stage 'later'"),
    ({"held_out": [{"path": "a.jsonl"}]}, "whose keys are known"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)


@pytest.mark.parametrize("name", ["sws", "score"])
def test_small_forms_have_a_plan(here, tmp_path, name):
  recipe = f"experiments/configs/{name}.py:small"
  assert here(tmp_path / "run", "--dry_run", config=recipe) is None


def test_a_control_is_one_value_away_and_sees_as_much():
  found = run.plan(weakness.get_config().to_dict())
  kinds = {name: found[f"for_{name}"][1] for name in weakness.AIMS}
  fields = {name: dataclasses.asdict(cfg) for name, cfg in kinds.items()}
  for name, about in fields.items():
    apart = [x for x in about if about[x] != fields["aimed"][x]]
    assert len(apart) == (name != "aimed"), name
    student = found[name][1]
    asked = student.loop.steps * student.rollout.problems
    assert about["count"] == asked, "some would come twice, or never"
