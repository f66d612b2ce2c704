"""Runs a program that is not trusted, alone in its box, and does as it is told.

It is told by lines of JSON on one descriptor and answers on another. Nothing
here guards anything: the program may take this process over, and then gives
whatever answers it likes. What the right ones are is not known here.
"""

import builtins
import importlib
import json
import os
import sys
from typing import Any


def main(orders: int, answers: int, *limits: int) -> None:
  """Runs the program of the first line, then calls what the others name."""
  wire.confine(*limits)
  read, write = os.fdopen(orders, "r"), os.fdopen(answers, "w")

  def reply(said: dict) -> None:
    json.dump(said, write)
    write.write("\n")
    write.flush()

  try:
    scope = wire.imported("program", json.loads(read.readline()), {})
    reply({"names": _names(scope)})
  except BaseException as error:
    return reply({"raised": _told(error)})
  objects: list[Any] = []
  for line in read:
    try:
      reply({"value": _obey(json.loads(line), scope, objects)})
    except BaseException as error:
      reply({"raised": _told(error)})


def _names(scope: dict[str, Any]) -> dict[str, Any]:
  """What stands behind each name of the program."""
  names = {}
  for name, x in scope.items():
    if name.startswith("__"):
      continue
    if isinstance(x, type(sys)):
      names[name] = ["module"]
    elif not callable(x):
      refuse = lambda x: ["unknown"]
      names[name] = ["data", wire.encode(x, refuse)]
    elif getattr(x, "__module__", "program") in ("program", None):
      names[name] = ["call"]
    else:
      names[name] = ["from", x.__module__]
  return names


def _obey(order: dict, scope: dict[str, Any], objects: list[Any]) -> Any:
  """Calls something or looks at it; the JSON of what comes of it."""

  def resolve(x: list) -> Any:
    kind, which = x
    if kind == "name":
      return scope[which]
    return objects[which] if kind == "object" else getattr(builtins, which)

  def refer(x: Any) -> list:
    objects.append(x)
    return ["object", len(objects) - 1]

  of = wire.decode(order["of"], resolve)
  if "to" in order:
    return setattr(of, order["attribute"], wire.decode(order["to"], resolve))
  if "attribute" in order:
    return wire.encode(getattr(of, order["attribute"]), refer)
  args = wire.decode(order["args"], resolve)
  return wire.encode(of(*args, **wire.decode(order["named"], resolve)), refer)


def _told(error: BaseException) -> list[str]:
  """An error by its builtin name, and what it says."""
  names = [kind.__name__ for kind in type(error).__mro__]
  known = next(name for name in names if hasattr(builtins, name))
  return [known, str(error)[:300]]


if __name__ == "__main__":
  # Beside this file lies only what it needs.
  sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
  wire = importlib.import_module("wire")
  main(*map(int, sys.argv[1:]))
