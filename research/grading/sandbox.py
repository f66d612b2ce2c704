"""Programs that nobody has read, run against tests in bubblewrap.

Two boxes without network, each with its own processes, a read-only system, a
small private /tmp and limits of its own. In one the program runs and is called
(`candidate`); in the other run the tests, which see only the plain data that
comes back (`judge`). The program's box holds neither tests nor results, and
what says "correct" is a pipe of the other box, which the program does not
have: so printing, exiting, patching builtins, reading frames or forging the
protocol gain nothing that returning the right values would not.

A program can start no process (a seccomp filter refuses to fork), so that its
memory is one process's and nothing survives it; all ends with its box.

Not defended: errors of the kernel or of bubblewrap; time and size as signals
(a program may learn that it is tested); a program that answers the few inputs
of its tests from a table; tests that ask the program itself whether it is
right (`decode(encode(x)) == x`). Names that tests call on other results are
the tests' own only where the tests define them.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

from research.grading import equality
from research.types import Verdict

_HERE = pathlib.Path(__file__).parent
_SYSTEM = ("usr", "lib", "lib64", "bin", "etc/ld.so.cache")


class Unavailable(RuntimeError):
  """There is no isolation here, so that nothing is run."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program and its tests may take; sizes in bytes."""

  seconds: float = 10.0
  memory: int = 1 << 30
  file_size: int = 1 << 20
  folder_size: int = 1 << 24


def run(program: str, tests: str, limits: Limits | None = None) -> Verdict:
  """The verdict of tests on a program; the tests call what it defines.

  "wrong" where a test fails, the program fails or ends early; "timeout" where
  both take longer than `limits.seconds`, their start included; "error", which
  has no value, where the tests do not compile or their box breaks. Raises
  Unavailable where bubblewrap is missing or not permitted: nothing is ever run
  outside of it.
  """
  return told(program, tests, limits)[0]


def told(
  program: str, tests: str, limits: Limits | None = None
) -> tuple[Verdict, str]:
  """The verdict, and in a few words why."""
  check()
  limits = limits or Limits()
  orders, answers = os.pipe(), os.pipe()
  try:
    candidate = _start("candidate", limits, (orders[0], answers[1]))
    judge = _start("judge", limits, (orders[1], answers[0]))
  finally:
    for descriptor in (*orders, *answers):
      os.close(descriptor)
  return _heard(candidate, judge, json.dumps([program, tests]), limits)


def _heard(
  candidate: subprocess.Popen,
  judge: subprocess.Popen,
  question: str,
  limits: Limits,
) -> tuple[Verdict, str]:
  """What the judge says in time; both boxes are gone afterwards."""
  try:
    said, _ = judge.communicate(question.encode(), timeout=limits.seconds)
    found = json.loads(said)
  except subprocess.TimeoutExpired:
    return Verdict("timeout", 0.0), f"not done within {limits.seconds:g} s"
  except ValueError:
    return Verdict("error", None), "the tests ended without a verdict"
  finally:
    for box in (judge, candidate):
      box.kill()
      box.communicate()
  if found["kind"] == "error":
    return Verdict("error", None), found["why"]
  return equality.verdict(found["kind"] == "correct"), found["why"]


def _start(
  role: str, limits: Limits, descriptors: tuple[int, int]
) -> subprocess.Popen:
  """A box in which `role`'s file runs, with two descriptors of its own."""
  numbers = (*descriptors, limits.memory, int(limits.seconds) + 1)
  with tempfile.TemporaryFile() as file:
    file.write(_no_processes())
    file.seek(0)
    command = [*_box(limits, role), "--seccomp", str(file.fileno())]
    command += [_python(), "-I", "-S", "-B", f"/box/{role}.py"]
    command += [str(n) for n in (*numbers, limits.file_size)]
    return subprocess.Popen(
      command,
      stdin=subprocess.PIPE if role == "judge" else subprocess.DEVNULL,
      stdout=subprocess.PIPE if role == "judge" else subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=(*descriptors, file.fileno()),
      env={},
    )


@functools.cache
def _python() -> str:
  """The interpreter itself, outside of any virtual environment."""
  return os.path.realpath(sys.executable)


def _box(limits: Limits, *roles: str) -> list[str]:
  """The command line of a box that holds Python and the files of some roles."""
  bound = []
  for name in _SYSTEM:
    path = pathlib.Path("/", name)
    if path.is_symlink():
      bound += ["--symlink", os.readlink(path), str(path)]
    elif path.exists():
      bound += ["--ro-bind", str(path), str(path)]
  prefix = sys.base_prefix
  if not prefix.startswith("/usr"):
    bound += ["--ro-bind", prefix, prefix]
  for role in (*roles, "wire"):
    bound += ["--ro-bind", str(_HERE / f"{role}.py"), f"/box/{role}.py"]
  return [
    "bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid",
    "65534", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
    "--clearenv", "--hostname", "box", *bound, "--proc", "/proc", "--dev",
    "/dev", "--remount-ro", "/dev", "--size", str(limits.folder_size),
    "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp",
  ]  # fmt: skip


@functools.cache
def check() -> None:
  """Raises Unavailable, with the remedy, where programs cannot be isolated."""
  if not shutil.which("bwrap"):
    raise Unavailable(
      "bubblewrap is not installed, and programs are not run without it: "
      "apt-get install bubblewrap"
    )
  command = [*_box(Limits()), _python(), "-I", "-S", "-c", ""]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60)
  if done.returncode:
    raise Unavailable(
      "bubblewrap cannot isolate programs here, so none is run: "
      f"{done.stderr.strip()[-200:]}"
    )


# Of linux/filter.h and linux/seccomp.h.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
_THREAD = 0x10000  # CLONE_THREAD
# The architecture, and its clone, fork and vfork; clone3 is 435 everywhere.
_CALLS = {
  "x86_64": (0xC000003E, 56, 57, 58),
  "aarch64": (0xC00000B7, 220, 220, 220),
}


@functools.cache
def _no_processes() -> bytes:
  """A seccomp filter: threads may start, processes may not.

  RLIMIT_NPROC would not do: it does not bind root, not even in a box.
  """
  machine = os.uname().machine
  if machine not in _CALLS:
    raise Unavailable(
      f"programs cannot be kept from forking on {machine}; grade them on one "
      f"of {', '.join(_CALLS)}"
    )
  architecture, clone, fork, vfork = _CALLS[machine]
  program = [
    (_LOAD, 0, 0, 4),
    (_EQUAL, 1, 0, architecture),
    (_RETURN, 0, 0, _KILL),
    (_LOAD, 0, 0, 0),
    (_AT_LEAST, 5, 0, 0x40000000),  # x86's third set of numbers
    (_EQUAL, 5, 0, 435),  # absent, and libc takes clone instead
    (_EQUAL, 5, 0, clone),
    (_EQUAL, 2, 0, fork),
    (_EQUAL, 1, 0, vfork),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ABSENT),
    (_LOAD, 0, 0, 16),  # clone's flags
    (_ANY_BIT, 0, 1, _THREAD),
    (_RETURN, 0, 0, _ALLOW),
    (_RETURN, 0, 0, _REFUSE),
  ]
  return b"".join(struct.pack("HBBI", *line) for line in program)
