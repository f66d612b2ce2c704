"""Finding the program in a completion; nothing here runs it."""

import ast
import re

from research.grading import extract

_FENCE = re.compile(r"[ \t]*```[ \t]*(python3?|py)?[ \t]*", re.IGNORECASE)


def fenced(text: str) -> str | None:
  """The last block of code after the thinking; None where there is none.

  A block that is never closed is none, and no earlier one takes its place.
  """
  block, inside = None, None
  for line in extract.conclusion(text).splitlines():
    fence = _FENCE.fullmatch(line)
    if fence and inside is not None and not fence[1]:
      block, inside = "\n".join(inside), None
    elif fence:
      block, inside = None, []
    elif inside is not None:
      inside.append(line)
  return block if block and block.strip() and inside is None else None


def program(text: str) -> str | None:
  """The text itself where it is a program that defines a function."""
  text = extract.conclusion(text)
  try:
    tree = ast.parse(text)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None
  defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
  return text if any(isinstance(node, defined) for node in tree.body) else None
