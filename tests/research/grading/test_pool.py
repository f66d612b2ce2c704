import concurrent.futures
import os
import signal
import sys
import threading
import time

import pytest

from research.grading import pool

ECHO = """
import json, os, sys, time
print("ready", flush=True)
for line in sys.stdin:
  what, x = json.loads(line)
  if what == "sleep":
    time.sleep(x)
  elif what == "die":
    os._exit(3)
  elif what == "die once" and not os.path.exists(x):
    open(x, "w").close()
    os._exit(3)
  elif what == "junk":
    print("no JSON", flush=True)
    continue
  print(json.dumps([os.getpid(), x]), flush=True)
"""


@pytest.fixture
def make():
  made = []

  def build(program=ECHO, workers=2, seconds=5.0, **args):
    command = [sys.executable, "-I", "-S", "-c", program]
    made.append(pool.Pool(command, workers=workers, seconds=seconds, **args))
    return made[-1]

  yield build
  for one in made:
    one.close()


def values(answers):
  return [answer.value[1] for answer in answers]


def test_answers_keep_the_order_of_the_questions(make):
  naps = [0.2, 0.0, 0.1, 0.0, 0.05]
  answers = make().map([["sleep", nap] for nap in naps])
  assert values(answers) == naps


def test_time_counts_from_the_start_of_work(make):
  """Sixteen naps of 0.3 s on two workers: the last ones wait 2 s, not work."""
  workers = make(seconds=1.0)
  answers = workers.map([["sleep", 0.3]] * 16 + [["sleep", 60]])
  assert [a.kind for a in answers] == ["done"] * 16 + ["timeout"]


def test_a_start_is_no_time_lost(make):
  slow = make("import time\ntime.sleep(1)\n" + ECHO, seconds=0.5)
  assert slow.ask(["echo", 1]).kind == "done"


def test_a_hanging_worker_is_replaced(make):
  one = make(workers=1)
  before = one.ask(["echo", 0]).value[0]
  start = time.monotonic()
  late = one.ask(["sleep", 60], seconds=0.3)
  assert late.kind == "timeout" and time.monotonic() - start < 3
  after = one.ask(["echo", 7])
  assert after.value[1] == 7 and after.value[0] != before
  with pytest.raises(ProcessLookupError):
    os.kill(before, 0)


def test_a_worker_killed_from_outside_is_replaced_and_asked_again(make):
  one = make(workers=1)
  before = one.ask(["echo", 0]).value[0]
  threading.Timer(0.3, os.kill, (before, signal.SIGKILL)).start()
  answer = one.ask(["sleep", 1.0])
  assert answer.kind == "done" and answer.value[0] != before


def test_a_question_that_kills_every_worker_is_an_error(make, tmp_path):
  one = make(workers=1)
  assert one.ask(["die", 0]).kind == "error"
  assert one.ask(["die once", str(tmp_path / "died")]).kind == "done"
  assert one.ask(["echo", 5]).value[1] == 5


@pytest.mark.parametrize("program", ["", "import sys; sys.exit(1)", "1/0"])
def test_a_worker_that_does_not_start_is_an_error(make, program):
  answer = make(program).ask(["echo", 1])
  assert answer.kind == "error" and "does not start" in answer.value


def test_junk_is_an_error_and_the_next_question_is_answered(make):
  one = make(workers=1)
  assert one.ask(["junk", 0]).kind == "error"
  assert one.ask(["echo", 5]).value[1] == 5


def test_long_questions_and_answers_pass(make):
  text = "x" * 3_000_000
  assert make().ask(["echo", text]).value[1] == text


def test_a_worker_that_does_not_read_is_late(make):
  deaf = make("import time\nprint('ready', flush=True)\ntime.sleep(60)")
  start = time.monotonic()
  assert deaf.ask(["echo", "x" * 3_000_000], seconds=0.3).kind == "timeout"
  assert time.monotonic() - start < 3


def test_many_threads_share_a_pool(make):
  shared = make()
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = threads.map(lambda i: shared.ask(["echo", i]), range(64))
  assert values(found) == list(range(64))


def test_a_fork_has_workers_of_its_own(make):
  shared = make(workers=1)
  ours = shared.ask(["echo", 0]).value[0]
  read, write = os.pipe()
  child = os.fork()
  if child == 0:
    theirs = shared.ask(["echo", 0]).value[0]
    os.write(write, str(theirs).encode())
    shared.close()
    os._exit(0)
  os.waitpid(child, 0)
  assert int(os.read(read, 100)) != ours
  assert shared.ask(["echo", 1]).value == [ours, 1]


def test_workers_are_retired(make):
  one = make(workers=1, uses=3)
  pids = [one.ask(["echo", 0]).value[0] for _ in range(7)]
  assert len(set(pids)) == 3 and pids[0] == pids[2] != pids[3]


def test_a_worker_has_no_secret_of_the_parents(make, monkeypatch):
  monkeypatch.setenv("TOKEN", "secret")
  program = ECHO.replace("[os.getpid(), x]", "[0, list(os.environ)]")
  assert "TOKEN" not in make(program).ask(["echo", 0]).value[1]


def test_an_interrupted_question_leaves_no_late_answer(make, monkeypatch):
  one = make(workers=1)
  one.ask(["echo", 0])
  real = pool._Worker.exchange

  def interrupted(self, line, seconds):
    real(self, line, 0.0) if not line else os.write(self._into, line)
    raise KeyboardInterrupt

  monkeypatch.setattr(pool._Worker, "exchange", interrupted)
  with pytest.raises(KeyboardInterrupt):
    one.ask(["echo", 1])
  monkeypatch.undo()
  assert one.ask(["echo", 2]).value[1] == 2


def test_a_pool_without_workers_is_refused():
  with pytest.raises(ValueError, match="0 workers"):
    pool.Pool(["x"], workers=0, seconds=1)
