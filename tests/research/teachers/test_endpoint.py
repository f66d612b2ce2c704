"""An endpoint that misbehaves, kills, budgets: each prompt once, in order."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

import openai
import pytest
from tokenizers import Tokenizer

from research.teachers import endpoint as endpoints
from research.teachers.answers import Answer
from research.teachers.endpoint import BudgetSpent, Endpoint, ask
from research.teachers.ledger import Ledger, Spent
from tests.research.teachers.server import served

REPOSITORY = pathlib.Path(__file__).parents[3]
GOLDEN = REPOSITORY / "tests/golden/templates/qwen2"


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


def words():
  """What is said in a prompt, by the name of its request."""
  named = endpoints._named(prompts(60), endpoint(""))
  return {name: messages[0]["content"] for name, messages in named}


def size(prompt):
  """Bytes."""
  return len('[{"role": "user", "content": ""}]') + len(prompt)


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
  events = lines(path)
  ids = [e["id"] for e in events if e["event"] == "answered"]
  assert len(ids) == len(set(ids)) == 40
  # What failed is there too, at no less than it may have cost.
  lost = [e["error"] for e in events if e["event"] == "lost"]
  assert len(lost) == spent.requests - 40
  for kind in ("RateLimit", "InternalServer", "_Cut", "JSON", "APITimeout"):
    assert any(kind in error for error in lost), kind
  asked = sum(size(words()[e["id"]]) for e in events if e["event"] == "lost")
  refused = sum("RateLimit" in e or "InternalServer" in e for e in lost)
  answers = 64 * (len(lost) - refused)
  assert spent.prompt_tokens == 3 * 40 + asked
  assert spent.completion_tokens == 3 * 40 + answers
  assert spent.estimated_tokens == asked + answers
  assert spent == Ledger(path).spent()


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
patient = endpoint(sys.argv[1], timeout=600.0)
list(ask(prompts(60), patient, Ledger(pathlib.Path(sys.argv[2]))))
"""


def killed(url, log, path, after):
  """A process that was killed once the server had `after` requests."""
  process = subprocess.Popen(
    [sys.executable, "-c", RUN, url, path], cwd=REPOSITORY
  )
  deadline = time.monotonic() + 60
  try:
    while not log.exists() or len(log.read_text().splitlines()) < after:
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
  finally:
    process.kill()
    process.wait()


@pytest.mark.parametrize("faults", ["...5..", "...5.." * 3])
def test_killed_in_the_middle(tmp_path, faults):
  """All four that ask are waiting for ever; the next four, which may be one of
  them twice where the machine is slow, are told 500.
  """
  log, path = tmp_path / "log", tmp_path / "ledger.jsonl"
  with served(log, faults + "hhhh" + "5555" + "." * 99) as url:
    killed(url, log, path, len(faults) + 4)
    text, before = path.read_text(), log.read_text().splitlines()
    known = lines(path)
    path.write_text(text + '{"event": "answ')  # as a kill may leave it
    patient, ledger = endpoint(url, timeout=600.0), Ledger(path)
    answers = list(ask(prompts(60), patient, ledger))
  assert [a.text for a in answers] == reversed_words(60)
  after = log.read_text().splitlines()[len(before) :]
  # On their way at the kill, by the file as it lay and by the server's log.
  last = {e["id"]: e["event"] for e in known}
  left = {name for name, event in last.items() if event == "asked"}
  repeated = {words()[name] for name in left}
  assert len(left) == 4 and repeated == set(before[-4:])
  # These are asked again, nothing else is, and each is marked once.
  assert repeated == set(before) & set(after)
  assert len(after) == len(set(after)) + 4
  asked = [e for e in lines(path)[len(known) :] if e["event"] == "asked"]
  marked = collections.Counter(e["id"] for e in asked if e["repeated"])
  assert marked == collections.Counter(left)
  spent = ledger.spent()
  assert spent.repeated == 4 and spent.answered == 60
  assert spent.requests == len(before) + len(after)
  # What they may have cost is counted once, however often the file is read.
  lost = [words()[e["id"]] for e in lines(path) if e["event"] == "lost"]
  assert len(lost) == faults.count("5") + 4
  unknown = sum(map(size, lost)) + sum(size(prompt) + 64 for prompt in repeated)
  assert spent.estimated_tokens == unknown
  assert spent == Ledger(path).spent()


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


@pytest.mark.parametrize("fault", ["n", "z", "u"])
def test_without_usage_bytes_end_the_budget(tmp_path, fault):
  each = size("say 0 again") + len("again 0 say") + 1
  path = tmp_path / "ledger.jsonl"
  with served(tmp_path / "log", fault) as url:
    few = endpoint(url, concurrency=1, most_tokens=3 * each)
    ledger, found = Ledger(path), []
    with pytest.raises(BudgetSpent, match=f"{3 * each} of .* on 3 answers"):
      found.extend(ask(prompts(9), few, ledger))
    # An answer says no more than what was told.
    [first, *_] = ask(prompts(3), few, ledger)
  assert first.text == "again 0 say" and first.completion_tokens == 0
  assert ledger.spent().estimated_tokens == 3 * each
  marks = [e["estimated"] for e in lines(path) if e["event"] == "answered"]
  assert marks == [[each - 12, 12]] * 3
  assert len((tmp_path / "log").read_text().splitlines()) == 3


def test_an_attempt_that_is_lost_ends_the_budget(tmp_path):
  path, each = tmp_path / "ledger.jsonl", size("say 0 again") + 64
  with served(tmp_path / "log", "tcg") as url:
    few = endpoint(url, concurrency=1, timeout=0.3, most_tokens=3 * each)
    with pytest.raises(BudgetSpent, match=f"{3 * each} of .* on 0 answers"):
      list(ask(prompts(1), few, Ledger(path)))
  lost = [e for e in lines(path) if e["event"] == "lost"]
  for e, said in zip(lost, ("Timeout", "finish_reason", "504"), strict=True):
    assert said in e["error"] and e["estimated"] == [each - 64, 64]


def test_what_never_left_costs_nothing(tmp_path):
  with served(tmp_path / "log", ".") as url:
    pass  # nobody is there any more
  ledger = Ledger(tmp_path / "ledger.jsonl")
  [answer] = ask(prompts(1), endpoint(url, attempts=2), ledger)
  spent = ledger.spent()
  assert answer.finish == "error" and spent.requests == 2
  assert spent.prompt_tokens == spent.completion_tokens == 0


def test_bytes_are_no_fewer_than_tokens():
  tokenizer = Tokenizer.from_file(f"{GOLDEN}/tokenizer.json")
  for text in ("", "1 + 1 = 2\n" * 9, "é漢字🙂" * 9, "\u200b\x00"):
    messages = ({"role": "user", "content": text},)
    told = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    count = len(tokenizer.encode(told, add_special_tokens=False).ids)
    assert count <= endpoints._bytes(messages)


def test_a_wrong_address_is_no_answer(tmp_path):
  with served(tmp_path / "log", ".") as url:
    wrong = endpoint(url + "/nowhere")
    with pytest.raises(openai.NotFoundError):
      list(ask(prompts(2), wrong, Ledger(tmp_path / "ledger.jsonl")))


def test_a_ledger_without_estimates_is_read(tmp_path):
  path = tmp_path / "ledger.jsonl"
  asked = {"event": "asked", "id": "a", "repeated": False}
  told = dataclasses.asdict(Answer("1", "stop", 3, 4))
  events = [asked, asked, {"event": "answered", "id": "a"} | told, asked]
  path.write_text("".join(json.dumps(event) + "\n" for event in events))
  assert Ledger(path).spent() == Spent(3, 0, 1, 0, 3, 4, 0)


def test_a_ledger_of_something_else_is_named(tmp_path):
  path = tmp_path / "ledger.jsonl"
  path.write_text(
    '{"event": "asked", "id": "a", "repeated": false}\n{"b": 1}\n'
  )
  with pytest.raises(ValueError, match=r"ledger.jsonl, line 2"):
    Ledger(path)
