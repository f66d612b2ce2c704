import collections
import os
import pathlib

import pytest

from research.grading import sandbox
from research.tasks import humaneval
from tests.research.tasks import programs

DATA = pathlib.Path(
  os.environ.get("PITH_DATA", pathlib.Path(__file__).parents[4] / "shared/data")
)
needs_data = pytest.mark.skipif(
  not (DATA / "humaneval/HumanEval.jsonl.gz").exists(),
  reason="HumanEval's file is not here; PITH_DATA says where it is",
)
HEAD = """import math


def helper(x):
  return x + 1


def twice(n: int) -> int:
"""
ROW = {
  "key": "HumanEval/0",
  "prompt": HEAD + '  """Twice n."""\n',
  "entry": "twice",
  "solution": "  return 2 * n\n",
  "test": "def check(candidate):\n  assert helper(candidate(2)) == 5\n",
}


@pytest.fixture(scope="module")
def isolated():
  try:
    sandbox.check()
  except sandbox.Unavailable as error:
    pytest.skip(str(error))


def test_what_is_asked_and_what_is_answered():
  problem = humaneval.problem_of(ROW)
  assert problem.prompt.startswith("Complete this function.")
  assert problem.prompt.endswith('"""Twice n."""')
  assert problem.answer.startswith("def twice") and "helper" in problem.prompt
  assert "return 2 * n" not in problem.prompt
  with pytest.raises(ValueError, match="does not begin `def thrice"):
    humaneval.problem_of({**ROW, "entry": "thrice"})


@pytest.mark.parametrize(
  ("text", "kind"),
  [
    ("```python\ndef twice(n):\n  return n + n\n```", "correct"),
    ("```\ndef twice(n):\n  return helper(n) + n - 1\n```", "correct"),
    ("```py\ndef twice(n): return math.floor(2 * n)\n```\nDone.", "correct"),
    ("```python\ndef twice(n): return 3\n```", "wrong"),
    ("```python\ndef thrice(n): return 3 * n\n```", "wrong"),
    ("```python\nreturn 2 * n\n```", "wrong"),
    ("```python\n```", "unparsed"),
    ("```python\ndef twice(n): return 2 * n", "unparsed"),
    ("```python\ndef twice(n): return 2 * n\n```\n```python\n", "unparsed"),
    ("def twice(n): return 2 * n", "unparsed"),
    ("<think>```python\ndef twice(n): return 2 * n\n```", "unparsed"),
    # The tests' helper is not the answer's to change.
    (
      "```python\ndef helper(x): return 5\ndef twice(n): return 0\n```",
      "wrong",
    ),
  ],
)
def test_rewards(text, kind, isolated):
  assert humaneval.reward(humaneval.problem_of(ROW), text).kind == kind


def test_the_programs_own_prompt_is_no_answer(isolated):
  problem = humaneval.problem_of(ROW)
  for text in (problem.prompt, f"```python\n{ROW['prompt']}```"):
    assert humaneval.reward(problem, text).value == 0.0
    assert humaneval.lenient(problem, text).value == 0.0


def test_without_isolation_a_reward_is_refused(monkeypatch):
  def refuse():
    raise sandbox.Unavailable("no isolation")

  monkeypatch.setattr(sandbox, "check", refuse)
  problem = humaneval.problem_of(ROW)
  with pytest.raises(sandbox.Unavailable):
    humaneval.reward(problem, humaneval.answer_text(problem))


def published(tmp_path):
  return list(humaneval.problems("test", 0, DATA, tmp_path))


@needs_data
def test_some_reference_solutions_pass_and_their_mutants_fail(
  isolated, tmp_path
):
  problems = published(tmp_path)
  assert len(problems) == 164
  right = [(p, p.answer) for p in problems[:12]]
  assert set(programs.kinds(humaneval, right)) == {"correct"}
  empty = [(p, programs.nothing(p.answer)) for p in problems[:12]]
  assert set(programs.kinds(humaneval, empty)) == {"wrong"}


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_all_reference_solutions_pass_and_mutants_fail(isolated, tmp_path):
  problems = published(tmp_path)
  right = [(p, p.answer) for p in problems]
  assert programs.kinds(humaneval, right) == ["correct"] * 164
  empty = [(p, programs.nothing(p.answer)) for p in problems]
  assert programs.kinds(humaneval, empty) == ["wrong"] * 164
  changed = [(p, m) for p in problems for m in programs.mutants(p.answer, 2)]
  found = collections.Counter(programs.kinds(humaneval, changed))
  print(f"mutants: {dict(found)}")
  assert found["error"] == 0 and found["correct"] < 0.1 * len(changed), found
