"""Runs tests on a program that is in another process, and says what it found.

The tests are the data set's and are run as they are. In them the program's
functions are stand-ins: a call sends plain data and gets plain data, so that
what the tests compare are values of this process, by its own `==`, and no
printing, exiting or patching over there can turn a failure into a pass.
"""

import ast
import builtins
import importlib
import json
import os
import sys
from typing import Any


class _Unable(BaseException):
  """The tests want something that the two processes cannot exchange."""


# UnicodeError cannot be made of a message.
_NEVER = AssertionError | UnicodeError | StopIteration | StopAsyncIteration


class _Lost(BaseException):
  """The program does not answer any more, or not as agreed."""


def _error(name: str, message: str) -> Exception:
  """The builtin error of a name.

  That a test failed is not for it to say, nor that a loop over its answers is
  at an end.
  """
  kind = getattr(builtins, name, None)
  if (
    isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, _NEVER)
  ):
    return kind(message)
  return RuntimeError(f"{name}: {message}")


class _Line:
  """The two descriptors that lead to the program."""

  def __init__(self, orders: int, answers: int):
    self._orders = os.fdopen(orders, "w")
    self._answers = os.fdopen(answers, "r")
    self.lost = False

  def ask(self, order: Any) -> Any:
    """The JSON that an order is answered with; raises what it raised there."""
    try:
      json.dump(order, self._orders)
      self._orders.write("\n")
      self._orders.flush()
      said = self._answers.readline(wire.LONGEST_LINE)
      said = json.loads(said)
      if "raised" not in said:
        return said
      name, message = said["raised"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
      self.lost = True
      raise _Lost(f"it gave no answer ({type(error).__name__})") from error
    raise _error(str(name), str(message))


class _Remote:
  """Something that stays with the program: equal to nothing but itself."""

  def __init__(self, line: _Line, address: list):
    vars(self).update(_line=line, _address=address)

  def _resolve(self, x: list) -> "_Remote":
    if x[0] != "object" or not isinstance(x[1], int):
      raise _Lost("it gave an answer that is none")
    return _Remote(self._line, x)

  def _send(self, **order: Any) -> Any:
    said = self._line.ask({"of": self._address, **order})
    try:
      return wire.decode(said["value"], self._resolve)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
      self._line.lost = True
      raise _Lost("it gave an answer that is none") from error

  def __call__(self, *args: Any, **named: Any) -> Any:
    """The result of a call over there."""
    pack = lambda x: wire.encode(x, _address)
    return self._send(args=pack(args), named=pack(named))

  def __getattr__(self, name: str) -> Any:
    """What an attribute holds over there."""
    if name.startswith("__"):
      raise AttributeError(name)
    return self._send(attribute=name)

  def __setattr__(self, name: str, value: Any) -> None:
    """Sets an attribute over there."""
    self._send(attribute=name, to=wire.encode(value, _address))


def _address(x: Any) -> list:
  """How the program is told of something that is no plain data."""
  if isinstance(x, _Remote):
    return x._address
  if getattr(builtins, getattr(x, "__name__", ""), None) is x:
    return ["builtin", x.__name__]
  raise _Unable(f"a {type(x).__name__} cannot be handed to the program")


# What tests may take from the standard library because the program imports it.
_STANDARD = {
  "bisect", "cmath", "collections", "copy", "datetime", "functools", "heapq",
  "itertools", "math", "operator", "random", "re", "string", "sys", "typing",
}  # fmt: skip


def _scope(line: _Line, names: dict[str, Any], tests: ast.Module) -> dict:
  """What the tests may name: stand-ins, the program's data and its imports."""
  scope: dict[str, Any] = {}
  own = _called_plainly(tests)
  for name, (kind, *rest) in names.items():
    # Its `abs` is not the tests' `abs`, unless that is what they test, and its
    # `math` is never theirs.
    if name in _STANDARD:
      scope[name] = importlib.import_module(name)
    elif hasattr(builtins, name) and name not in own:
      continue
    elif kind == "call":
      scope[name] = _Remote(line, ["name", name])
    elif kind == "data" and rest[0] != ["unknown"]:
      scope[name] = wire.decode(rest[0], lambda x: None)
    elif kind == "from" and rest[0] in _STANDARD:
      module = importlib.import_module(rest[0])
      scope |= {name: getattr(module, name)} if hasattr(module, name) else {}
  return scope


def _called_plainly(tests: ast.Module) -> set[str]:
  """The builtin names that tests only ever call on plain data.

  `assert sum(10, 15) == 25` tests the program's `sum`. In
  `assert abs(f(x) - 1) < 1e-6` it would decide its own case.
  """
  plain, judging = set(), set()
  for node in ast.walk(tests):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      parts = ast.walk(
        ast.Tuple([*node.args, *(k.value for k in node.keywords)])
      )
      calls = any(isinstance(part, ast.Call | ast.Name) for part in parts)
      (judging if calls else plain).add(node.func.id)
  return plain - judging


def judged(line: _Line, program: str, tests: str) -> dict[str, str]:
  """The kind of verdict, and why."""
  try:
    tree = ast.parse(tests)
  except (SyntaxError, ValueError) as error:
    return {"kind": "error", "why": f"the tests do not compile: {error}"}
  try:
    names = line.ask(program)["names"]
    wire.imported("tests", tests, _scope(line, names, tree))
  except Exception as error:
    return {"kind": "wrong", "why": f"{type(error).__name__}: {error}"[:300]}
  except _Unable as error:
    return {"kind": "error", "why": str(error)}
  except _Lost as error:
    return {"kind": "wrong", "why": str(error)}
  # A test that catches everything has not seen an answer either.
  kind = "wrong" if line.lost else "correct"
  return {"kind": kind, "why": "it stopped answering" if line.lost else ""}


def main(orders: int, answers: int, *limits: int) -> None:
  """Reads the program and its tests, and writes one line of JSON."""
  wire.confine(*limits)
  program, tests = json.loads(sys.stdin.read())
  out = os.fdopen(os.dup(1), "w")
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 1)  # tests may print
  print(json.dumps(judged(_Line(orders, answers), program, tests)), file=out)
  out.flush()
  os._exit(0)


if __name__ == "__main__":
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  wire = importlib.import_module("wire")
  main(*map(int, sys.argv[1:]))
