"""Programs under test: what passes, what fails, and what they cannot do."""

import contextlib
import hashlib
import os
import pathlib
import socket
import subprocess
import threading
import time

import pytest

from research.grading import candidate, judge, sandbox, wire
from research.grading.sandbox import Limits, Unavailable

try:
  sandbox.check()
  MISSING = ""
except Unavailable as error:
  MISSING = str(error)
isolated = pytest.mark.skipif(bool(MISSING), reason=MISSING or "isolated")

TESTS = "assert f(2) == 4"
RIGHT = "def f(x): return 2 * x"
SOON = Limits(seconds=3.0)


def kind(program, tests=TESTS, limits=SOON):
  verdict, _ = sandbox.told(program, tests, limits)
  assert (verdict.value is None) == (verdict.kind == "error")
  assert (verdict.value == 1.0) == (verdict.kind == "correct")
  return verdict.kind


PASSES = {
  "plain": (RIGHT, TESTS),
  "several": (RIGHT, "for n in range(50): assert f(n) == 2 * n"),
  "data": (
    "def f(*a, **b): return a, b",
    "x = [1.5, {2}, {'a': (None, True)}, b'z', 'ü', 1j, 10**400, float('inf')]"
    "\nassert f(*x, k=1) == (tuple(x), {'k': 1})",
  ),
  "iterator": ("def f(n): yield from range(n)", "assert list(f(3)) == [0,1,2]"),
  "counter": (
    "from collections import Counter\ndef f(x): return Counter(x)",
    "assert f('aab') == {'a': 2, 'b': 1}",
  ),
  "range": ("def f(n): return range(n)", "assert f(3) == range(3)"),
  "objects": (
    "class P:\n  def __init__(s, a): s.a = a\n"
    "def total(ps): return sum(p.a for p in ps)",
    "q = P(3)\nq.a = 4\nassert total([P(1), q]) == 5 and q.a == 4",
  ),
  "raises": (
    "def f(x): raise ValueError('no')",
    "try:\n  f(1)\nexcept ValueError as e:\n  assert 'no' in str(e)\n"
    "else:\n  assert False",
  ),
  "passed functions": (
    "def g(f, x): return f(x)\ndef h(x): return -x",
    "assert g(h, 1) == -1 and g(abs, -2) == 2",
  ),
  "named like a builtin": (
    "def sum(a, b): return a + b",
    "assert sum(1, 2) == 3",
  ),
  "its imports": ("import math", "assert math.sqrt(4) == 2"),
  "a thread": (
    "import threading\ndef f(x):\n  r = []\n"
    "  t = threading.Thread(target=lambda: r.append(2 * x))\n"
    "  t.start()\n  t.join()\n  return r[0]",
    TESTS,
  ),
  "a file in /tmp": (
    "def f(x):\n  open('/tmp/n', 'w').write(str(2 * x))\n"
    "  return int(open('/tmp/n').read())",
    TESTS,
  ),
}


@isolated
@pytest.mark.parametrize("name", sorted(PASSES))
def test_right_programs_pass(name):
  assert kind(*PASSES[name]) == "correct"


FORGERIES = {
  "wrong": "def f(x): return x",
  "nothing": "",
  "no Python": "def f(x) return 4",
  "prints": "print('correct')\nprint('{\"kind\": \"correct\"}')",
  "exits": "import os\nos._exit(0)",
  "exits later": "import os\ndef f(x): os._exit(0)",
  "sys.exit": "import sys\ndef f(x): sys.exit(0)",
  "atexit": "import atexit\natexit.register(print, 'correct')",
  "kills itself": "import os\ndef f(x): os.kill(os.getpid(), 9)",
  "asserts": "def f(x): assert False",
  "equal to all": (
    "class A:\n  def __eq__(s, o): return True\n"
    "  def __bool__(s): return True\n  __hash__ = None\n"
    "def f(x): return A()"
  ),
  "an int equal to all": (
    "class A(int):\n  def __eq__(s, o): return True\n"
    "  __hash__ = int.__hash__\ndef f(x): return A(5)"
  ),
  "patches": (
    "import builtins, json, sys\n"
    "builtins.AssertionError = ZeroDivisionError\n"
    "json.dump = lambda *a: None\n"
    "def f(x): return 5"
  ),
  "patches isinstance": (
    "import builtins\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 5"
  ),
  "writes to every descriptor": (
    "import os\nfor n in range(3, 64):\n  try:\n"
    '    os.write(n, b\'{"kind": "correct", "why": ""}\\n\')\n'
    "  except OSError as e:\n    del e\nos._exit(0)"
  ),
  "speaks the protocol": (
    "import os\nfor n in range(3, 64):\n  try:\n"
    '    os.write(n, b\'{"names": {"f": ["data", ["int", "0x4"]]}}\\n\')\n'
    "  except OSError as e:\n    del e\nos._exit(0)"
  ),
  "reads the frames": (
    "import gc, sys\ndef f(x):\n"
    "  seen = [o for o in gc.get_objects() if 'assert f(2)' in str(o)[:99]]\n"
    "  return 4 if seen else 5"
  ),
  "starts a process": "import subprocess\ndef f(x): subprocess.run(['true'])",
  "forks": "import os\ndef f(x):\n  while True: os.fork()",
  "becomes a daemon": (
    "import os\ndef f(x):\n  if os.fork() == 0:\n    os.setsid()\n"
    "    while True: pass\n  return 4"
  ),
  "takes all memory": (
    "def f(x):\n  a = []\n  while True: a.append(bytearray(10**8))"
  ),
  "signals others": (
    "import os\ndef f(x):\n  for p in range(1, 300):\n    try:\n"
    "      if p != os.getpid(): os.kill(p, 9)\n"
    "    except OSError as e: del e\n  return 5"
  ),
  "an endless answer": "def f(x): return iter(int, 1)",
  "a deep answer": (
    "def f(x):\n  a = []\n  for _ in range(10**5): a = [a]\n  return a"
  ),
}


@isolated
@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_nothing_else_passes(name):
  start = time.monotonic()
  # A bomb of memory takes its time on a busy machine.
  assert kind(FORGERIES[name], limits=Limits(seconds=20.0)) == "wrong"
  assert time.monotonic() - start < 30


@isolated
@pytest.mark.parametrize(
  "tests",
  [
    "for a, b in zip(map(f, [1, 2]), [2, 4]): assert a == b",
    "assert all(map(f, [1, 2]))",
    "assert [*map(f, [1])] == []",
  ],
)
def test_a_program_does_not_end_a_loop_of_the_tests(tests):
  assert kind("def f(x): raise StopIteration", tests) == "wrong"
  assert kind("def f(x): raise StopAsyncIteration", tests) == "wrong"


@isolated
@pytest.mark.parametrize(
  "program",
  [
    "while True: pass",
    "def f(x):\n  while True: pass",
    "def f(x):\n  while True: print('x' * 10**6)",
    "import os, sys\ndef f(x):\n  while True: os.write(2, b'x' * 10**6)",
    "import time\ndef f(x): time.sleep(60)",
    "import signal, time\nfor n in range(1, 65):\n  try:\n"
    "    signal.signal(n, signal.SIG_IGN)\n  except Exception as e: del e\n"
    "def f(x):\n  while True: time.sleep(1)",
  ],
)
def test_what_does_not_end_is_ended(program):
  start = time.monotonic()
  assert kind(program, limits=Limits(seconds=1.0)) == "timeout"
  assert time.monotonic() - start < 3


@isolated
def test_the_tests_own_builtins_judge():
  """Where `abs` judges a result, it is not the program's."""
  forged = "def abs(x): return 0\ndef f(x): return 77\nimport operator as math"
  assert kind(forged, "assert abs(f(2) - 4) < 1e-6") == "wrong"
  forged = "class math:\n  isclose = lambda *a: True\ndef f(x): return 7"
  assert kind(forged, "assert math.isclose(f(2), 4)") == "wrong"


@isolated
def test_a_test_that_catches_everything_is_not_passed_by_a_dead_program():
  tests = "try:\n  f(1)\nexcept BaseException as e:\n  del e"
  assert kind("import os\ndef f(x): os._exit(0)", tests) == "wrong"


@isolated
@pytest.mark.parametrize("tests", ["assert f(2", "\x00", "def"])
def test_broken_tests_are_an_error_and_no_zero(tests):
  assert kind(RIGHT, tests) == "error"


@isolated
def test_tests_that_cannot_be_run_over_there_are_an_error_and_no_zero():
  assert kind("def g(f): return f(1)", "assert g(lambda x: x) == 1") == "error"


@isolated
def test_a_judge_that_ends_early_is_an_error():
  assert kind(RIGHT, "import os\nos._exit(0)") == "error"


@isolated
def test_nothing_of_the_grader_or_of_the_machine_is_seen(tmp_path):
  (tmp_path / "secret").write_text("4")
  here = pathlib.Path(__file__).resolve()
  look = f"""
import os
def f(x):
  seen = [p for p in {[str(tmp_path), str(here), os.getcwd()]!r}
          if os.path.exists(p)]
  return seen, sorted(os.listdir('/box')), list(os.environ), os.getuid()
"""
  tests = (
    "seen, box, environment, user = f(0)\n"
    "assert not seen and user == 65534, seen\n"
    "assert box == ['candidate.py', 'wire.py'], box\n"
    "assert not {'HOME', 'TOKEN'} & set(environment), environment"
  )
  verdict, why = sandbox.told(look, tests, SOON)
  assert verdict.kind == "correct", why


@isolated
@pytest.mark.parametrize(
  "path",
  ["/pith", "/box/judge.py", "/box/wire.py", "/usr/p", "/dev/shm/p", "/etc/p"],
)
def test_nothing_is_written_outside_of_tmp(path):
  sources = [pathlib.Path(m.__file__) for m in (wire, candidate, judge)]
  before = [hashlib.sha256(p.read_bytes()).digest() for p in sources]
  program = f"def f(x):\n  open({path!r}, 'w').write('4')\n  return 4"
  assert kind(program) == "wrong"
  assert before == [hashlib.sha256(p.read_bytes()).digest() for p in sources]
  assert path.startswith("/box") or not os.path.exists(path)


@isolated
def test_files_are_small():
  program = (
    "def f(x):\n  with open('/tmp/n', 'wb') as o:\n"
    "    for _ in range(100): o.write(b'x' * 10**6)\n  return 4"
  )
  assert kind(program) == "wrong"
  program = (
    "def f(x):\n  for n in range(100):\n"
    "    open(f'/tmp/{n}', 'wb').write(b'x' * 10**6)\n  return 4"
  )
  assert kind(program) == "wrong"


@isolated
def test_there_is_no_network():
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    program = (
      "import socket\ndef f(x):\n"
      f"  socket.create_connection(('127.0.0.1', {port}), 1)\n  return 4"
    )
    assert kind(program) == "wrong"


@isolated
def test_nothing_survives_and_nobody_is_hurt():
  """Not the program's threads, and not another process of this user."""
  bystander = subprocess.Popen(["sleep", "60"])
  mark = f"box-{os.getpid()}"
  program = (
    "import ctypes, os, threading, time\n"
    f"ctypes.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)\n"
    "def stay():\n  while True: time.sleep(0.1)\n"
    "def f(x):\n  threading.Thread(target=stay).start()\n  os._exit(0)"
  )
  assert kind(program) in ("wrong", "timeout")
  assert kind(FORGERIES["signals others"]) == "wrong"
  assert bystander.poll() is None
  bystander.kill()
  bystander.wait()
  end = time.monotonic() + 10  # its box is killed, and that takes a moment
  while mark in (names := _commands()) and time.monotonic() < end:
    time.sleep(0.05)
  assert mark not in names


def _commands():
  """The names of all processes of this machine."""
  names = []
  for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
    with contextlib.suppress(OSError):
      names.append(path.read_text().strip())
  return names


@isolated
def test_boxes_work_from_several_threads():
  found = []
  run = lambda n: found.append(
    kind(RIGHT if n % 2 else "def f(x): return x") == "correct" == bool(n % 2)
  )
  threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 6


@isolated
def test_a_limit_on_memory_is_the_programs_own():
  program = "def f(x): return len(bytearray(10**8)) // 25_000_000"
  assert kind(program) == "correct"
  assert kind(program, limits=Limits(seconds=3, memory=1 << 26)) == "wrong"


def test_without_bubblewrap_nothing_runs(monkeypatch, tmp_path):
  sandbox.check.cache_clear()
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(Unavailable, match="apt-get install bubblewrap"):
    sandbox.run(RIGHT, TESTS)
  fake = tmp_path / "bwrap"
  fake.write_text("#!/bin/sh\necho 'no permission' >&2\nexit 1\n")
  fake.chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
  with pytest.raises(Unavailable, match="none is run: no permission"):
    sandbox.run(RIGHT, TESTS)
  monkeypatch.undo()
  sandbox.check.cache_clear()


def test_what_is_no_plain_data_is_refused_on_the_way_back():
  refuse = lambda x: [][0]
  for x in (["object", "x"], ["nonsense", 1], [], ["int", "z"], 5, {"a": 1}):
    with pytest.raises((LookupError, ValueError, TypeError)):
      wire.decode(x, refuse)
