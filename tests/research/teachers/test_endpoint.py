"""An endpoint that misbehaves, kills, budgets: each prompt once, in order."""

import collections
import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

import openai
import pytest

from research.teachers import endpoint as endpoints
from research.teachers.endpoint import BudgetSpent, Endpoint, ask
from research.teachers.ledger import Ledger
from tests.research.teachers.server import served

REPOSITORY = pathlib.Path(__file__).parents[3]


def endpoint(url, **changes):
  usual = Endpoint(
    url,
    "reverser",
    max_tokens=64,
    concurrency=4,
    timeout=1.0,
    first_wait=0.01,
    attempts=8,
  )
  return dataclasses.replace(usual, **changes)


def prompts(n):
  return [({"role": "user", "content": f"say {i} again"},) for i in range(n)]


def reversed_words(n):
  return [f"again {i} say" for i in range(n)]


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_prompt_ends_once_and_in_order(tmp_path):
  log, path = tmp_path / "log", tmp_path / "ledger.jsonl"
  with served(log, "..4.5..c.m...t..") as url:
    ledger = Ledger(path)
    answers = list(ask(prompts(40), endpoint(url), ledger))
  assert [a.text for a in answers] == reversed_words(40)
  assert {a.finish for a in answers} == {"stop"}
  spent = ledger.spent()
  assert spent.answered == 40 and spent.failed == spent.repeated == 0
  assert spent.requests == len(log.read_text().splitlines()) > 40
  assert spent.prompt_tokens == spent.completion_tokens == 3 * 40
  ids = [e["id"] for e in lines(path) if e["event"] == "answered"]
  assert len(ids) == len(set(ids)) == 40


def test_what_is_known_is_not_asked_again(tmp_path):
  log, path = tmp_path / "log", tmp_path / "ledger.jsonl"
  twice = [*prompts(5), *prompts(5)]  # two samples of each
  with served(log, ".") as url:
    first = list(ask(twice, endpoint(url), Ledger(path)))
    assert len(log.read_text().splitlines()) == 10
    again = list(ask(twice, endpoint(url), Ledger(path)))
    assert first == again
    assert len(log.read_text().splitlines()) == 10
    list(ask(prompts(1), endpoint(url, temperature=1.0), Ledger(path)))
    assert len(log.read_text().splitlines()) == 11


RUN = """
import sys, pathlib
from tests.research.teachers.test_endpoint import endpoint, prompts
from research.teachers.endpoint import ask
from research.teachers.ledger import Ledger
ledger = Ledger(pathlib.Path(sys.argv[2]))
for answer in ask(prompts(60), endpoint(sys.argv[1]), ledger):
  print(answer.text, flush=True)
"""


@pytest.mark.parametrize("after", [5, 30])
def test_killed_in_the_middle(tmp_path, after):
  log, path = tmp_path / "log", tmp_path / "ledger.jsonl"
  with served(log, "...5..") as url:
    command = [sys.executable, "-c", RUN, url, path]
    process = subprocess.Popen(
      command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(after):
      process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1].splitlines()
    stored = {e["id"] for e in map(json.loads, whole) if e["event"] != "asked"}
    path.write_text(text + '{"event": "answ')  # as a kill may leave it
    before = collections.Counter(log.read_text().splitlines())
    ledger = Ledger(path)
    answers = list(ask(prompts(60), endpoint(url), ledger))
  assert [a.text for a in answers] == reversed_words(60)
  events = lines(path)
  later = events[len(whole) :]
  assert len(stored) >= after
  assert not stored & {e["id"] for e in later if e["event"] == "asked"}
  repeated = [e for e in later if e["event"] == "asked" and e["repeated"]]
  assert len(repeated) == ledger.spent().repeated <= 4
  assert sum(before.values()) <= len(
    [e for e in events if e["event"] == "asked"]
  )


def test_a_prompt_that_is_refused_ends_with_its_error(tmp_path):
  with served(tmp_path / "log", "b") as url:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    [answer] = ask(prompts(1), endpoint(url), ledger)
  assert answer.text is None and "400" in answer.error
  assert ledger.spent().requests == ledger.spent().failed == 1


def test_a_prompt_that_always_fails_ends_and_the_others_go_on(tmp_path):
  with served(tmp_path / "log", "5") as url:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    answers = list(ask(prompts(3), endpoint(url, attempts=2), ledger))
  assert [a.finish for a in answers] == ["error"] * 3
  assert "InternalServerError 2 times" in answers[0].error
  assert ledger.spent().requests == 6
  # What failed for the day is asked again on another.
  with served(tmp_path / "log", ".") as url:
    again = Ledger(tmp_path / "ledger.jsonl")
    found = list(ask(prompts(3), endpoint(url), again))
  assert [a.text for a in found] == reversed_words(3)


def test_the_budget_ends_it_and_keeps_what_is_known(tmp_path):
  path = tmp_path / "ledger.jsonl"
  with served(tmp_path / "log", ".") as url:
    ledger = Ledger(path)
    priced = endpoint(
      url, concurrency=1, prompt_price=1e6, completion_price=2e6, most_money=40
    )
    with pytest.raises(BudgetSpent, match=r"45 of most_money=40.*5 answers"):
      list(ask(prompts(9), priced, ledger))
    assert endpoints.money(priced, ledger) == 5 * (3 + 6)
    more = dataclasses.replace(priced, most_money=None, most_tokens=10**6)
    found = list(ask(prompts(9), more, Ledger(path)))
  assert [a.text for a in found] == reversed_words(9)
  assert len((tmp_path / "log").read_text().splitlines()) == 9


def test_a_wrong_address_is_no_answer(tmp_path):
  with served(tmp_path / "log", ".") as url:
    wrong = endpoint(url + "/nowhere")
    with pytest.raises(openai.NotFoundError):
      list(ask(prompts(2), wrong, Ledger(tmp_path / "ledger.jsonl")))


def test_a_ledger_of_something_else_is_named(tmp_path):
  path = tmp_path / "ledger.jsonl"
  path.write_text(
    '{"event": "asked", "id": "a", "repeated": false}\n{"b": 1}\n'
  )
  with pytest.raises(ValueError, match=r"ledger.jsonl, line 2"):
    Ledger(path)
