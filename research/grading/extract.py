r"""Finding the final answer in a completion; nothing here reads its meaning.

`strict` takes the project's own format, a line `#### answer`, and `boxed` and
`tagged` take those of others. Each looks at the *last* marker only: an empty
or unterminated one means no answer and never falls back to an earlier one.
`lenient` takes any marker and else the last number, to tell a lack of format
from a lack of skill.
"""

import re

# A line of its own, so a `####` in running text is no answer.
_HASHES = re.compile(r"^####(?!#)[ \t]*([^\n]*)$", re.MULTILINE)
_NUMBER = re.compile(
  r"-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?"
  r"|-?\$?\.[0-9]+"
)


def conclusion(text: str) -> str:
  """The text after the thinking; empty while the thinking is unfinished."""
  start, end = text.rfind("<think>"), text.rfind("</think>")
  if start > end:
    return ""
  return text[end + len("</think>") :] if end >= 0 else text


def strict(text: str) -> str | None:
  """What stands on the last line that begins with `####`."""
  found = _HASHES.findall(conclusion(text))
  return (found[-1].strip() or None) if found else None


def boxed(text: str) -> str | None:
  r"""The content of the last `\boxed{}`, braces balanced."""
  _, found, rest = conclusion(text).rpartition("\\boxed")
  rest = rest.lstrip()
  if not found or not rest.startswith("{"):
    return None
  depth = 0
  # An escaped brace is matched with its backslash, and so does not count.
  for token in re.finditer(r"\\.|[{}]", rest):
    depth += {"{": 1, "}": -1}.get(token[0], 0)
    if depth == 0 and token[0] == "}":
      return rest[1 : token.start()].strip() or None
  return None


def tagged(text: str) -> str | None:
  """The content of the last `<answer>...</answer>`; may span lines."""
  _, found, rest = conclusion(text).rpartition("<answer>")
  inside, closed, _ = rest.partition("</answer>")
  return (inside.strip() or None) if found and closed else None


def last_number(text: str) -> str | None:
  """The last number as written, with its sign, commas or fraction bar."""
  numbers = list(_NUMBER.finditer(text))
  if not numbers:
    return None
  number, before = numbers[-1][0], text[: numbers[-1].start()].rstrip()
  # In `7-2` the bar is a subtraction, not the sign of 2.
  binary = number[0] == "-" and before[-1:] in tuple("0123456789)")
  return number[1:] if binary else number


def marked(text: str) -> str | None:
  """The answer of whichever marker stands last.

  None where there is no marker; the empty string where the last one holds
  nothing readable, which is not the same as having none.
  """
  after = conclusion(text)
  readers = {"####": _inline, "\\boxed": boxed, "<answer>": tagged}
  last = max(readers, key=after.rfind)
  return (readers[last](after) or "") if last in after else None


def lenient(text: str) -> str | None:
  """The answer of the marker that stands last; without any, the last number."""
  found = marked(text)
  return last_number(conclusion(text)) if found is None else found or None


def _inline(text: str) -> str | None:
  """What follows the last `####`, wherever on its line that stands."""
  return text.rpartition("####")[2].partition("\n")[0].strip() or None
