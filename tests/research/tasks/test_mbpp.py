import collections
import json
import os
import pathlib

import pytest

from research.data import readers
from research.grading import sandbox
from research.tasks import mbpp
from tests.research.tasks import programs

DATA = pathlib.Path(
  os.environ.get("PITH_DATA", pathlib.Path(__file__).parents[4] / "shared/data")
)
needs_data = pytest.mark.skipif(
  not (DATA / "mbpp/mbpp.jsonl").exists(),
  reason="MBPP's file is not here; PITH_DATA says where it is",
)
ROW = {
  "key": "MBPP/601",
  "text": "Write a function to sum two numbers.",
  "code": "class Box:\n  pass\n\ndef sum(a, b):\n  return a + b",
  "setup": "box = Box()\nbox.a = 2",
  "tests": "assert sum(1, 2) == 3\nassert box.a == 2",
}


@pytest.fixture(scope="module")
def isolated():
  try:
    sandbox.check()
  except sandbox.Unavailable as error:
    pytest.skip(str(error))


def test_what_is_asked_and_what_is_answered():
  problem = mbpp.problem_of(ROW)
  assert problem.prompt.splitlines()[2:4] == ROW["tests"].splitlines()
  assert problem.answer not in problem.prompt


@pytest.mark.parametrize(
  ("text", "kind"),
  [
    ("{}", "correct"),
    (
      "```python\nclass Box: pass\n\ndef sum(a, b): return b + a\n```",
      "correct",
    ),
    ("```python\nclass Box: pass\n\ndef sum(a, b): return 4\n```", "wrong"),
    ("```python\ndef sum(a, b): return a + b\n```", "wrong"),
    ("```python\nassert True\n```", "wrong"),
    ("{}\n```python\n```", "unparsed"),
    ("nothing", "unparsed"),
  ],
)
def test_rewards(text, kind, isolated):
  problem = mbpp.problem_of(ROW)
  text = text.replace("{}", mbpp.answer_text(problem))
  assert mbpp.reward(problem, text).kind == kind


def published(split, tmp_path):
  return list(mbpp.problems(split, 0, DATA, tmp_path))


@needs_data
def test_some_reference_solutions_pass_and_their_mutants_fail(
  isolated, tmp_path
):
  test, train = published("test", tmp_path), published("train", tmp_path)
  assert (len(test), len(train)) == (90, 374)
  # The set-up of 927 uses the class of its answer; 596 the tests' own `sys`.
  odd = [p for p in test + train if p.meta["key"][5:] in ("927", "596")]
  right = [(p, p.answer) for p in [*odd, *test[:10]]]
  assert len(odd) == 2
  assert set(programs.kinds(mbpp, right)) == {"correct"}
  empty = [(p, programs.nothing(p.answer)) for p in test[:10]]
  assert set(programs.kinds(mbpp, empty)) == {"wrong"}


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_all_reference_solutions_pass_and_mutants_fail(isolated, tmp_path):
  problems = [*published("test", tmp_path), *published("train", tmp_path)]
  right = [(p, p.answer) for p in problems]
  assert programs.kinds(mbpp, right) == ["correct"] * 464
  empty = [(p, programs.nothing(p.answer)) for p in problems]
  assert programs.kinds(mbpp, empty) == ["wrong"] * 464
  changed = [(p, m) for p in problems for m in programs.mutants(p.answer, 1)]
  found = collections.Counter(programs.kinds(mbpp, changed))
  print(f"mutants: {dict(found)}")
  assert found["error"] == 0 and found["correct"] < 0.2 * len(changed), found


@pytest.mark.parametrize(
  ("row", "said"),
  [
    ({"task_id": "7", "test_list": []}, "number `task_id`"),
    ({"task_id": 700, "test_list": "assert"}, "list `test_list`"),
    ({"task_id": 700, "test_list": [], "text": " "}, "text"),
  ],
)
def test_a_malformed_row_is_named(row, said, tmp_path):
  path = tmp_path / "mbpp.jsonl"
  path.write_text(json.dumps(row) + "\n")
  with pytest.raises(ValueError, match=f"mbpp.jsonl:1: .*{said}"):
    list(readers.mbpp(path, "train"))
