"""Dotted addresses to modules and to what they hold."""

import importlib
from typing import Any


def resolve(address: str) -> Any:
  """Returns the module or the attribute at an address such as "a.b.c".

  Raises:
    ValueError: nothing is there; says which part is missing.
  """
  if not all(address.split(".")):
    raise ValueError(f"nothing is at {address!r}: it is no dotted address")
  head, _, name = address.rpartition(".")
  try:
    return importlib.import_module(address)
  except ModuleNotFoundError as error:
    # Only its own absence is forgiven, not that of something it imports.
    if error.name is None or not address.startswith(error.name):
      raise
  holder = resolve(head) if head else None
  if not hasattr(holder, name):
    raise ValueError(f"nothing is at {address!r}: {head or '.'} has no {name}")
  return getattr(holder, name)
