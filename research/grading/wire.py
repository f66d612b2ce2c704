"""Plain data as JSON, between the tests and a program that is not trusted.

Numbers, texts, bytes and containers travel as what they are. Any other object
stays where it is and travels as a number that refers to it: the other side may
call it and look at it, but never takes its word for what it is equal to.
"""

import builtins
import importlib.util
import itertools
import pathlib
import resource
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

# Of one iterator; of one line, in bytes.
MOST_ITEMS, LONGEST_LINE = 1_000_000, 1 << 24

_GROUPS: list[tuple[str, type, Callable]] = [
  ("list", list, list),
  ("tuple", tuple, tuple),
  ("set", set, set),
  ("frozenset", frozenset, frozenset),
]


def encode(x: Any, refer: Callable[[Any], Any]) -> Any:
  """JSON for a value; `refer` gives the JSON of what is no plain data.

  What is of a subclass goes as its base: nobody's `__eq__` travels.
  """
  if x is None or x is True or x is False:
    return x
  if isinstance(x, str):
    return str.__str__(x)
  if isinstance(x, int):
    return ["int", hex(int(x))]
  if isinstance(x, float):
    return ["float", float.__repr__(x)]
  if isinstance(x, complex):
    return ["complex", float.__repr__(x.real), float.__repr__(x.imag)]
  if isinstance(x, bytes | bytearray):
    return ["bytes", bytes(x).hex()]
  if isinstance(x, dict):
    pairs = dict.items(x)
    return ["dict", [[encode(k, refer), encode(v, refer)] for k, v in pairs]]
  for name, kind, _ in _GROUPS:
    if isinstance(x, kind):
      return [name, [encode(item, refer) for item in kind.__iter__(x)]]
  if isinstance(x, range):
    return ["range", x.start, x.stop, x.step]
  if isinstance(x, type({}.keys()) | type({}.values()) | type({}.items())):
    return ["list", [encode(item, refer) for item in x]]
  if hasattr(x, "__next__"):
    return ["iterator", _items(x, refer)]
  return refer(x)


def _items(x: Iterable, refer: Callable[[Any], Any]) -> list:
  """What an iterator gives, if it is not too much."""
  items = list(itertools.islice(x, MOST_ITEMS + 1))
  if len(items) > MOST_ITEMS:
    raise ValueError(f"an iterator of more than {MOST_ITEMS} items")
  return [encode(item, refer) for item in items]


def decode(x: Any, resolve: Callable[[Any], Any]) -> Any:
  """The value of some JSON; `resolve` finds what is referred to.

  Raises ValueError, TypeError or LookupError where it is none of ours.
  """
  if x is None or isinstance(x, bool | str):
    return x
  kind, *rest = x
  if kind == "int":
    return int(rest[0], 16)
  if kind in ("float", "complex"):
    return getattr(builtins, kind)(*map(float, rest))
  if kind == "bytes":
    return bytes.fromhex(rest[0])
  if kind == "range":
    return range(*rest)
  if kind == "dict":
    return {decode(k, resolve): decode(v, resolve) for k, v in rest[0]}
  if kind == "iterator":
    return iter([decode(item, resolve) for item in rest[0]])
  for name, _, build in _GROUPS:
    if kind == name:
      return build([decode(item, resolve) for item in rest[0]])
  return resolve(x)


def confine(memory: int, seconds: int, file_size: int) -> None:
  """Limits this process for good; bytes and seconds of CPU time."""
  for limit, most in (
    (resource.RLIMIT_AS, memory),
    (resource.RLIMIT_CPU, seconds),
    (resource.RLIMIT_FSIZE, file_size),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 64),
  ):
    resource.setrlimit(limit, (most, most))


def imported(name: str, source: str, scope: dict[str, Any]) -> dict[str, Any]:
  """Imports a text as a module that starts from a scope; what it then holds."""
  path = pathlib.Path(tempfile.mkdtemp()) / f"{name}.py"
  path.write_text(source, encoding="utf-8")
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  vars(module).update(scope)
  spec.loader.exec_module(module)
  return vars(module)
