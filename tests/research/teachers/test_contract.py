"""The same prompts through any teacher give traces of one schema."""

import importlib
import itertools
import json
import pathlib
import pkgutil
import re

import pytest

import research.teachers
from research.tasks import chain
from research.teachers import answers
from research.teachers.answers import Answer
from research.types import Problem, Trace
from tests.research.teachers.folders import checkpoint
from tests.research.teachers.server import served

ASKED = list(itertools.islice(chain.problems("train", 0), 3))
N = 2
TEACHERS = {
  name: module
  for _, name, _ in pkgutil.iter_modules(research.teachers.__path__)
  for module in [importlib.import_module(f"research.teachers.{name}")]
  if hasattr(module, "write")
}


def recorded(folder):
  rows = [
    {"key": p.meta["key"], "completion": chain.trace(p, 0)}
    for p in ASKED
    for _ in range(N)
  ]
  rows[-1] = b"broken"
  path = pathlib.Path(folder) / "recorded.jsonl"
  path.write_text("".join(f"{json.dumps(r)}\n" for r in rows[:-1]) + "broken\n")
  return {"path": str(path)}


@pytest.fixture
def args(tmp_path):
  """args(teacher): what it is to be told; one trace of each fails, or none."""
  with served(tmp_path / "log", ".....b") as url:
    yield {
      "solver": lambda: {},
      "recorded": lambda: recorded(tmp_path),
      "checkpoint": lambda: {
        "directory": str(checkpoint(tmp_path / "teacher")),
        "new_tokens": 8,
        "rows": 2,
      },
      "endpoint": lambda: {
        "url": url,
        "model": "reverser",
        "max_tokens": 64,
        "concurrency": 1,
        "ledger": str(tmp_path / "ledger.jsonl"),
      },
    }


def check(trace):
  assert type(trace) is Trace and type(trace.problem) is Problem
  assert trace.finish in ("stop", "length", "error")
  failed = trace.finish == "error"
  assert (trace.text is None) == failed == (trace.error is not None)
  assert failed or type(trace.text) is str
  assert trace.tokens is None or (
    type(trace.tokens) is int and trace.tokens > 0
  )


@pytest.mark.parametrize("name", sorted(TEACHERS))
def test_one_schema(name, args):
  told = args[name]()
  traces = list(TEACHERS[name].write(chain, ASKED, N, 0, **told))
  assert [(t.problem, t.sample) for t in traces] == [
    (problem, sample) for problem in ASKED for sample in range(N)
  ]
  for trace in traces:
    check(trace)
  assert len(TEACHERS) == 4
  failing = {"recorded": 1, "endpoint": 1}
  failed = sum(t.finish == "error" for t in traces)
  assert failed == failing.get(name, 0)


@pytest.mark.parametrize("name", ["checkpoint", "endpoint"])
def test_those_that_read_messages_answer_in_order(name, args):
  talks = [answers.question(f"say {i}") for i in range(3)]
  replies = TEACHERS[name].reply(talks, 0, **args[name]())
  found = [next(replies) for _ in talks]
  assert all(type(a) is Answer and a.text for a in found)
  account = answers.account(replies)
  assert account["completion_tokens"] == sum(a.completion_tokens for a in found)
  json.dumps(account)


def test_a_ledger_is_not_asked_twice(args, tmp_path):
  told = args["endpoint"]()
  first = list(TEACHERS["endpoint"].write(chain, ASKED, 1, 0, **told))
  again = list(TEACHERS["endpoint"].write(chain, ASKED, 1, 0, **told))
  assert again == first
  assert len((tmp_path / "log").read_text().splitlines()) == 3


def test_other_ends_are_errors():
  empty = Trace(ASKED[0], None, 0, "error")
  found = answers.of_answer(empty, Answer("half a", "content_filter", 1, 2))
  check(found)
  assert found.error and "content_filter" in found.error


def test_more_answers_than_questions_are_noticed():
  def reply(talks):
    yield from (Answer("x", "stop") for _ in [*talks, None])
    return {}

  with pytest.raises(ValueError, match=re.escape("more often than asked")):
    list(answers.traces(ASKED, 1, reply))
