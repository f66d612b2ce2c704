"""The fuzzer finds nothing in a thousand texts, and finds what is planted."""

import random
import subprocess
import sys
import time

import pytest

from experiments.bench import grading
from research.grading import equality, extract


@pytest.fixture(autouse=True)
def golden(monkeypatch, request):
  folder = request.config.rootpath / "tests" / "golden" / "grading"
  monkeypatch.setattr(grading, "FOLDER", folder)


@pytest.fixture(scope="module")
def watch():
  return grading.Watch()


def test_a_thousand_texts_break_no_rule():
  broken, told = grading.fuzz(1000, seed=7)
  assert broken == []
  assert told.startswith("1,000 texts in ") and "seed 7" in told


def test_texts_follow_from_the_seed():
  made = lambda seed: [
    grading.mutated("(1,2)", random.Random(seed), ["x+1", "5"])
    for _ in range(3)
  ]
  assert made(1) == made(1) != made(2)


def busy(seconds):
  start = time.thread_time()
  while time.thread_time() - start < seconds:
    sum(range(1000))


PLANTED = {
  "raises": (extract, "final_answer", lambda text: 1 // 0),
  "not equal to itself": (equality, "plainly", lambda a, b: False),
  "one way only": (equality, "plainly", lambda a, b: a <= b),
  "takes": (extract, "final_answer", lambda text: busy(1.1)),
  "compile": (
    extract,
    "final_answer",
    lambda text: compile("1", "", "eval") and None,
  ),
  "open": (extract, "final_answer", lambda text: open("/dev/null").close()),
  "subprocess.Popen": (
    extract,
    "final_answer",
    lambda text: subprocess.call([sys.executable, "-S", "-c", ""]) or None,
  ),
}


@pytest.mark.parametrize("fault", sorted(PLANTED))
def test_a_planted_fault_is_found(fault, monkeypatch, watch):
  monkeypatch.setattr(*PLANTED[fault])
  found = list(grading.faults("b", "a", watch))
  assert any(fault in said for said in found), found


def test_a_worker_that_fails_is_a_fault(monkeypatch):
  monkeypatch.setattr(
    equality, "grade", lambda *a, **b: equality.Verdict("error", None)
  )
  assert list(grading.by_workers([("a", "b")], {"error": 0}))
