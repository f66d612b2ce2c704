"""Attempts mended where they first go wrong, and answers begun there."""

import dataclasses
import itertools
import json

import pytest

from experiments import pools, run
from experiments.configs import _next_line
from research.tasks import multiplication
from research.teachers.answers import Answer
from tests.experiments import tiny

TASK = "research.tasks.multiplication"
DIGITS = {"digits": [[2, 1]]}
LONGER = {"task": TASK, "split": "train", "args": {"digits": [[2, 2]]}}
SEED = 3


def drawn(count):
  found = multiplication.problems("train", SEED, ((2, 1),))
  return list(itertools.islice(found, count))


FIRST, SECOND = drawn(2)
RIGHT = multiplication.trace(FIRST, 0)
WORK, ANSWER = RIGHT.split("\n")
LUCKY = f"{WORK}0\n{ANSWER}"  # a wrong line, a right answer
SLIP = f"{WORK}\n#### 1"


def reply(conversations, seed, *, ends):
  """A teacher that goes on with the same words, whatever is asked."""
  del seed
  for messages, end in zip(conversations, ends, strict=True):
    assert messages[0]["content"].count("\n") > 3
    yield Answer(end, "stop", completion_tokens=7)
  return {"tokens": 7}


def stage(**changes):
  c = tiny.get_config("distil").to_dict()
  fields = {
    "stage": "experiments.stages.mend",
    "problems": {"task": TASK, "split": "train", "args": DIGITS},
    "count": 2,
    "attempts": ["{annotate}/dropped.jsonl"],
  }
  c |= {"seed": SEED, "mended": fields | changes}
  c["stages"] = ("annotate", "distilled", "mended")
  return run.plan(c)["mended"]


@pytest.fixture
def made(tmp_path):
  """made({problem's place: texts}, **changes): outputs, problems, traces."""

  def make(texts, name="dropped.jsonl", of=((2, 1),), **changes):
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    path = folder / "annotate" / name
    path.parent.mkdir(parents=True)
    found = multiplication.problems("train", SEED, of)
    asked = list(itertools.islice(found, 3))
    lines = [
      json.dumps({"key": asked[i].meta["key"], "completion": text}) + "\n"
      for i, said in texts.items()
      for text in said
    ]
    path.write_text("".join(lines))
    module, config = stage(**changes)
    inputs = {"annotate": {"folder": str(folder / "annotate")}}
    told = module.run(config, inputs, folder)
    begun = list(pools.read(str(folder / "problems.jsonl")))
    traces = (folder / "traces.jsonl").read_text().splitlines()
    return told, begun, [json.loads(line) for line in traces]

  return make


ATTEMPTS = {
  0: [RIGHT, LUCKY, SLIP, f"{WORK}\n#### 2", f"{RIGHT}\nmore", None],
  1: ["no", WORK],
}


def test_attempts_are_mended_at_their_first_slip(made):
  told, begun, traces = made(ATTEMPTS)
  assert told == {
    "unread": 1,
    "attempts": 7,
    "wrong": 6,
    "too_long": 1,
    # "no" and WORK of another product go wrong in the first line, and two
    # attempts at the first product in the same second one
    "begun": 3,
    "bare": 2,
    "mended": 3,
    "teacher": {},
  }
  assert [(p.meta["key"], p.begun) for p in begun] == [
    (FIRST.meta["key"], ""),
    (FIRST.meta["key"], f"{WORK}\n"),
    (SECOND.meta["key"], ""),
  ]
  assert begun[1].prompt == FIRST.prompt and begun[1].answer == FIRST.answer
  assert [t["completion"] for t in traces[:2]] == [RIGHT, RIGHT]
  assert {t["prompt"] for t in traces} == {FIRST.prompt, SECOND.prompt}


def test_a_beginning_is_the_attempts_own_and_what_follows_is_open(made):
  """With a planted slip in each line of a longer product."""
  problem = next(multiplication.problems("train", SEED, ((2, 2),)))
  lines = multiplication.trace(problem, 0).split("\n")
  for place in range(len(lines)):
    text = "\n".join([*lines[:place], f"{lines[place]}1", *lines[place + 1 :]])
    (begun,) = made({0: [text]}, of=((2, 2),), problems=LONGER)[1]
    assert text.startswith(begun.begun)
    assert begun.begun.count("\n") == place
    error = multiplication.first_error(problem, begun.begun)
    assert error == (place, lines[place]), "it is wrong, or it is whole"


def test_an_answer_may_begin_behind_the_mended_step(made):
  """But not where that was the last."""
  told, begun, traces = made(ATTEMPTS, begin="step")
  first = multiplication.trace(SECOND, 0).split("\n")[0]
  assert [p.begun for p in begun] == [f"{WORK}\n", f"{first}\n"]
  assert told["begun"] == 2 and told["bare"] == 0 and len(traces) == 3
  with pytest.raises(ValueError, match="nothing can be mended"):
    made({0: [SLIP]}, begin="step")


def test_a_teacher_goes_on_and_is_checked(made):
  ends = [RIGHT, ANSWER, f"{ANSWER}0"]
  teacher = {"name": "tests.experiments.test_mend", "args": {"ends": ends}}
  told, begun, traces = made(ATTEMPTS, teacher=teacher)
  assert [t["completion"] for t in traces] == [RIGHT, RIGHT]
  assert (told["begun"], told["mended"]) == (3, 2) and len(begun) == 3
  assert told["teacher"] == {"tokens": 7}


def test_a_solution_that_begins_otherwise_is_none(made):
  """The answer may still be begun."""
  told, begun, traces = made({0: [f"\n{SLIP}"]})
  assert begun[0].begun == f"\n{WORK}\n"
  assert not traces and told["mended"] == 0


def test_a_folder_stands_for_its_files(made):
  for name in ("000000.jsonl", "000007.jsonl"):
    told, _, _ = made({0: [SLIP]}, name=name, attempts=["{annotate}"])
    assert told["wrong"] == 1


@pytest.mark.parametrize(
  "changes",
  [
    {"begin": "step"},
    {"count": 3},
    {
      "problems": {"task": TASK, "split": "train", "args": {"digits": [[2, 2]]}}
    },
    {"attempts": ["{annotate}/none.jsonl"]},
    {"teacher": {"name": "tests.experiments.test_mend", "args": {"ends": "?"}}},
  ],
)
def test_no_field_is_dead(made, changes):
  attempts = {0: [WORK], 2: [SLIP]} if "count" in changes else {0: ["no"]}

  def seen(**changes):
    try:
      return made(attempts, **changes)
    except (ValueError, FileNotFoundError) as error:
      return str(error)

  assert seen(**changes) != seen()


@pytest.mark.parametrize(
  ("texts", "said"),
  [
    ({2: [SLIP]}, r"dropped.jsonl:1: '\d+\*\d+' is none of the 2 problems"),
    ({0: [RIGHT]}, "nothing can be mended: .*'attempts': 1, 'wrong': 0"),
    ({0: [f"{RIGHT}\nmore"]}, "nothing can be mended: .*'too_long': 1"),
    ({}, "nothing can be mended: .*'attempts': 0"),
  ],
)
def test_nothing_to_mend(made, texts, said):
  with pytest.raises(ValueError, match=said):
    made(texts)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"count": 0}, "at least 1 of each"),
    ({"attempts": []}, "at least 1 of each"),
    ({"begin": "answer"}, "config.mended.begin"),
    (
      {"problems": {"task": "research.tasks.chain", "split": "train"}},
      "chain has no first_error",
    ),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)


@pytest.mark.parametrize(
  ("begun", "said", "kind"),
  [
    ("", RIGHT, "correct"),
    ("", SLIP, "correct"),  # what comes behind the first line is no matter
    ("", f"{WORK}0\n{ANSWER}", "wrong"),
    ("", "", "wrong"),
    (f"{WORK}\n", f"{WORK}\n{ANSWER}", "correct"),
    (f"{WORK}\n", SLIP, "wrong"),
    (f"{WORK}\n", f"{WORK}\n", "wrong"),
    (WORK, WORK, "wrong"),  # it added nothing
    (WORK, f"{WORK}1\n{ANSWER}", "wrong"),  # it spoiled what was right
    (WORK, f"{WORK}\n{ANSWER}", "correct"),
  ],
)
def test_the_line_behind_the_beginning_alone_is_graded(begun, said, kind):
  problem = dataclasses.replace(FIRST, begun=begun)
  assert _next_line.reward(problem, said).kind == kind
