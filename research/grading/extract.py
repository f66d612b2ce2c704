r"""Finding the final answer in a completion; nothing here reads its meaning.

`strict` takes the project's own format, a line `#### answer`, and `boxed` and
`tagged` take those of others. Each looks at the *last* marker only (`tagged`
wants one): an empty or unterminated one means no answer and never falls back to
an earlier one.
`lenient` takes any marker and else the last number, to tell a lack of format
from a lack of skill. What rewards read, `strict`, `tagged` and `final_answer`,
is never a comment's.
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
  found = _HASHES.findall(_without_comments(conclusion(text)))
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
  """The content of the one `<answer>...</answer>`; may span lines.

  Of several none counts: who lists answers has given none.
  """
  after = conclusion(text)
  seen = _without_comments(after)
  if seen.count("<answer>") != 1:
    return None
  # An answer `x % y` is none of LaTeX's comments.
  after = after if after.count("<answer>") == 1 else seen
  inside, closed, _ = after.partition("<answer>")[2].partition("</answer>")
  return (inside.strip() or None) if closed else None


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
  after = _without_comments(conclusion(text))
  readers = {"####": _inline, "\\boxed": boxed, "<answer>": tagged}
  last = max(readers, key=after.rfind)
  return (readers[last](after) or "") if last in after else None


def lenient(text: str) -> str | None:
  """The answer of the marker that stands last; without any, the last number."""
  found = marked(text)
  if found is not None:
    return found or None
  return last_number(_without_comments(conclusion(text)))


def _inline(text: str) -> str | None:
  """What follows the last `####`, wherever on its line that stands."""
  return text.rpartition("####")[2].partition("\n")[0].strip() or None


_PHRASE = re.compile(
  r"\b(?:answer|(?:correct|right|best)\s+(?:option|choice))"
  r"(?:\s+(?:to|of|for)\b[^.\n]{0,80}?)?(?:\s+is\b|\*{0,2}\s*(?:=|:))"
  r"(?:\s+(?:therefore|thus|simply|then)\b)?\s*:?\s*(?:\*\*)?",
  re.IGNORECASE,
)
# A line of its own over the answer: a heading, bold, or "final answer".
_HEADING = re.compile(
  r"^[ \t]*(?:(?:#{1,6}[ \t]+)?(?:\*\*|__)(?:final[ \t]+)?answer[.:]?"
  r"(?:\*\*|__)|#{1,6}[ \t]+(?:final[ \t]+)?answer|final[ \t]+answer)"
  r"[.:]?[ \t]*\r?\n",
  re.IGNORECASE | re.MULTILINE,
)
# All that may stand under it, up to an empty line: one value by itself.
_ALONE = re.compile(
  r"\s*(?:[-*+]\s+)?(?:\*\*)?(?:(-?[0-9][0-9.,/%]*|[A-J]|\([A-J]\)"
  r"|\$[^$\n]{1,300}\$|\\\([^\n]{1,300}?\\\))|\$\$([^$]{1,300})\$\$"
  r"|\\\[((?:(?!\\\]).){1,300})\\\])(?:\*\*)?[.]?"
  r"(?:\s*\Z|[ \t\r]*\n[ \t\r]*\n)",
  re.DOTALL,
)
# A formula is passed over: what stands in it is no end of a sentence.
_ENDS = re.compile(
  r"\$(?:\\.|[^$\\\n]){1,100}\$"
  r"|\.(?=\s|$|<)|,?\s+(?:because|since|as shown)\b|</answer>|\n"
)
# `\boxed 5` holds what stands alone before the line's end.
_LOOSE = re.compile(r"[ \t]*([0-9]+|[A-Z])(?=[.$)\s]*(?:\Z|\n))")
_MARKERS = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])|(?<!#)####(?!#)|<answer>")
_COMMENTS = re.compile(
  r"<!--.*?(?:-->|\Z)"
  r"|\\begin\s*\{comment\}.*?(?:\\end\s*\{comment\}|\Z)"
  r"|\\iffalse\b.*?(?:\\fi\b|\Z)"
  r"|^[ \t]*%[^\n]*|^\[//\]:[^\n]*"
  r"|(?<=[}>])[ \t]+%[^\n]*|%[ \t]*(?:\\[bf]?box|####|<answer>)[^\n]*",
  re.DOTALL | re.MULTILINE,
)
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)(?:```|\Z)", re.DOTALL | re.MULTILINE)
# A fence without a language may hold an answer after `####`, too.
_CODE_COMMENT = re.compile(r"(?:^|(?<=\s))(?:#|//)[^\n]*", re.MULTILINE)
_BARE_COMMENT = re.compile(r"(?:^|(?<=\s))(?:#(?!##)|//)[^\n]*", re.MULTILINE)
# What begins with a value: "the answer is independent of $n$" holds none.
_VALUE = re.compile(
  r"\W*(?:(?:approximately|about|exactly|simply|indeed|just|now)\s+)?"
  r"(?:[-+.({\[]*[0-9\\$]|[A-Ja-z]\W*$|[a-zA-Z]\w*\s*=)"
)
_WORD = re.compile(r"[A-Za-z]{3}")
_LETTER_LINE = re.compile(r"[\s*(]*([A-J])[\s*).:]*")
_LETTERS = re.compile(r"[A-J](?:\W+(?:and\W+|or\W+)?[A-J])+", re.IGNORECASE)


def final_answer(text: str) -> str | None:
  r"""The answer that a text ends on, as written; None where there is none.

  Of `\boxed{}`, `####`, `<answer>` and "the answer is", the one that stands
  last counts, and no earlier one takes its place where it is empty or never
  closed. Without any, a value alone under a heading "Answer" counts, or a last
  line of one letter. No answers are: what stands in a comment, a second
  `<answer>`, a list of all choices.
  """
  text = _without_comments(conclusion(text))
  last = max(_spots(text), key=lambda spot: spot[1], default=None)
  if last is None:
    return _under_heading(text) or _last_letter(text)
  found = _content(text, *last)
  return None if found is None or _all_choices(found) else found


def _under_heading(text: str) -> str | None:
  """The value by itself under the last heading "Answer"."""
  heads = list(_HEADING.finditer(text))
  alone = _ALONE.match(text, heads[-1].end()) if heads else None
  return alone and next(x for x in alone.groups() if x).strip().rstrip(".,")


def _last_letter(text: str) -> str | None:
  """The choice that a last line of one letter is."""
  lines = text.strip().splitlines()
  letter = _LETTER_LINE.fullmatch(lines[-1]) if lines else None
  return letter[1] if letter else None


def has_marker(text: str) -> bool:
  """Whether one of the markers of `final_answer` stands in a text."""
  return bool(_MARKERS.search(text) or _PHRASE.search(text))


def _spots(text: str) -> list[tuple[str, int, int]]:
  """The last of each kind of marker: its kind, where it begins and ends."""
  kind = lambda found: "boxed" if "box" in found else found
  last = {kind(m[0]): (kind(m[0]), *m.span()) for m in _MARKERS.finditer(text)}
  said = [("is", *m.span()) for m in _PHRASE.finditer(text)][-1:]
  # A heading `#### Check`, and "so our answer is correct", are no answers
  # where another marker holds one.
  line = last.get("####")
  if line and len(last) > 1 and _WORD.search(_content(text, *line) or ""):
    del last["####"]
  if last and not any(_VALUE.match(_content(text, *s) or "") for s in said):
    said = []
  return [*last.values(), *said]


def _content(text: str, kind: str, start: int, end: int) -> str | None:
  """What a marker holds."""
  if kind == "boxed":
    loose = _LOOSE.match(text, end)
    return loose[1] if loose else boxed("\\boxed" + text[end:])
  if kind == "<answer>":
    return tagged(text)
  if kind == "####":
    return text[end:].partition("\n")[0].strip() or None
  said = text[end:].lstrip()
  ends = (m.start() for m in _ENDS.finditer(said) if m[0][0] != "$")
  return said[: next(ends, len(said))].strip(" \t*") or None


def _all_choices(found: str) -> bool:
  """Whether an answer lists the choices from the first one on."""
  plain = re.sub(r"\\[a-z]+|[{}]", " ", found).strip(" ()*.$")
  if len(plain) > 200 or not _LETTERS.fullmatch(plain):
    return False
  letters = re.findall(r"\b[A-J]\b", plain.upper())
  return len(letters) > 2 and letters == list("ABCDEFGHIJ")[: len(letters)]


def _without_comments(text: str) -> str:
  """The text that a reader sees; a comment that never ends hides the rest."""
  comment = lambda m: _CODE_COMMENT if m[1].strip() else _BARE_COMMENT
  text = _FENCED.sub(lambda m: comment(m).sub("", m[0]), text)
  return _COMMENTS.sub("", text)
