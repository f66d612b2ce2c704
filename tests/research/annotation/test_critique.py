"""Check, revise, reveal: by a script, and through an endpoint."""

import functools
import json

import pytest

from research.annotation import critique
from research.annotation.gates import About
from research.tasks import multiplication
from research.teachers import endpoint
from research.teachers.answers import Answer
from research.types import Trace
from tests.research.annotation.making import (
  Script,
  about,
  grader,
  reasons,
  texts,
  trace,
)
from tests.research.teachers.server import served

KINDS = {f"bad{i}": "wrong" for i in range(9)} | {"good": "correct"}
KINDS |= {"??": "unparsed", "late": "timeout"}
KINDS |= {f"bad{i} cut": "wrong" for i in range(9)}


def run(traces, say, **args):
  teacher = Script(say)
  known = about(grader(KINDS), reply=teacher)
  return critique.sift(traces, known, **args), teacher.asked


def phase(message):
  starts = {"Problem": "check", "Now write": "revise"}
  kind = next(
    kind for words, kind in starts.items() if message.startswith(words)
  )
  return "reveal" if "A wrong solution" in message else kind


def scripted(better):
  """A teacher that knows what it writes for each phase and problem, in turn."""

  def reply(talks):
    for talk in talks:
      place = phase(talk[-1]["content"]), talk[0]["content"].split()[1]
      said = "a mistake" if place[0] == "check" else better[place].pop(0)
      yield Answer(said, "stop", 3, 4)
    return {}

  return reply


def test_rounds_until_it_is_right():
  """Right at once, after a round, after two, when told, and never."""
  better = {
    ("revise", "1a"): ["good"],
    ("revise", "2b"): ["bad1", "good"],
    ("revise", "3c"): ["bad1", "bad2"],
    ("reveal", "3c"): ["good"],
    ("revise", "4d"): ["bad1", "??"],
    ("reveal", "4d"): ["bad3"],
  }
  prompts = ["0z", "1a", "2b", "3c", "4d"]
  said = ["good", "bad0", "??", "bad0", "bad0"]
  traces = [trace(x, prompt=p) for x, p in zip(said, prompts, strict=True)]
  known = about(grader(KINDS), reply=scripted(better))
  found = critique.sift(traces, known)
  assert texts(found) == ["good"] * 4
  assert [t.problem.prompt for t in found.kept] == prompts[:4]
  assert reasons(found) == ["wrong"]
  rounds = {"at first": 1, "round 1": 1, "round 2": 1, "revealed": 1}
  assert found.figures["correct"] == rounds | {"unanswered": 0}
  assert not any(better.values())
  assert found.kept[1].tokens == 4  # the revision's, not the first text's


def test_what_the_teacher_is_asked():
  say = lambda m: {"check": "<think>hm</think>it is 1", "revise": "bad1"}.get(
    phase(m), "good"
  )
  found, asked = run([trace("bad0", answer="42")], say, rounds=1)
  assert texts(found) == ["good"]
  assert [len(talk) for talk in asked] == [1, 3, 1]
  assert (
    "Attempt 1" in asked[0][0]["content"] and "bad0" in asked[0][0]["content"]
  )
  assert asked[1][1] == {"role": "assistant", "content": "it is 1"}
  assert "42" not in str(asked[:2])  # the answer is not revealed before
  assert asked[2][0]["content"].endswith("#### 42") and "bad1" in str(asked[2])


def test_neither_reveal_nor_rounds():
  found, asked = run(
    [trace("bad0"), trace("good")], None, rounds=0, reveal=False
  )
  assert not asked and reasons(found) == ["wrong"] and texts(found) == ["good"]


def test_ungraded_traces_are_not_known_to_be_wrong():
  found, asked = run([trace("late")], None)
  assert not asked and reasons(found) == ["timeout"]


@pytest.mark.parametrize(
  "silence",
  [
    Answer(None, "error", error="x"),
    Answer(" ", "stop"),
    Answer("\ud800", "stop"),
  ],
  ids=["error", "blank", "broken"],
)
def test_what_is_not_answered_stays_and_is_counted(silence):
  found, asked = run([trace("bad0")], lambda m: silence, rounds=2)
  assert len(asked) == 3  # two checks and the reveal; nothing to revise
  assert found.figures["correct"]["unanswered"] == 3
  assert reasons(found) == ["wrong"] and found.dropped[0][0].text == "bad0"


def test_through_an_endpoint(tmp_path):
  script = [
    ["Now write the corrected", "a1+1=2\n#### 2"],
    ["Check it step by step", "It should be two."],
  ]
  ledger = tmp_path / "ledger.jsonl"
  with served(tmp_path / "log", ".5..", script) as url:
    ask = functools.partial(
      endpoint.reply,
      seed=0,
      url=url,
      model="reverser",
      max_tokens=9,
      first_wait=0.01,
      ledger=str(ledger),
    )
    traces = [trace(f"#### {n}", sample=n) for n in range(4)]
    found = critique.sift(traces, about(reply=ask), rounds=1, reveal=False)
    again = critique.sift(traces, about(reply=ask), rounds=1, reveal=False)
  assert again == found
  assert texts(found) == [*["a1+1=2\n#### 2"] * 2, "#### 2", "a1+1=2\n#### 2"]
  assert found.figures["correct"]["round 1"] == 3
  # 3 checks, 3 revisions, and what was asked again after a 500: nothing twice.
  events = [json.loads(line) for line in ledger.read_text().splitlines()]
  answered = [e["id"] for e in events if e["event"] == "answered"]
  assert len(answered) == len(set(answered)) == 6
  assert 6 < len(events) - len(answered) < 12


def test_lessons_are_in_the_words_of_the_gate():
  """What the gate asks is what a critic has learned to answer."""
  problem = next(multiplication.problems("train", 0, ((2, 1),)))
  right = multiplication.trace(problem, 0)
  wrong = Trace(problem, right + "1", 0, "stop")
  lessons = critique.lessons(multiplication, wrong)
  asked = []

  def reply(talks):
    """A critic that gives its critique by heart, and no solution."""
    for talk in talks:
      asked.append(talk)
      checked = talk == lessons[0][:1]
      yield Answer(lessons[0][1]["content"] if checked else "1", "stop")
    return {}

  known = About(multiplication, None, 0, reply=reply)
  critique.sift([wrong], known, rounds=1, reveal=False)
  critique.sift([wrong], known, rounds=0, reveal=True)
  assert asked == [lessons[0][:1], lessons[0][:3], lessons[1][:1]]
  assert [talk[-1]["content"] for talk in lessons] == [right] * 2
  assert not critique.lessons(multiplication, Trace(problem, right, 0, "stop"))
