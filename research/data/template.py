"""How a conversation is laid out: as pieces, each the assistant's or not.

Either turn by turn between fixed marks, or by the checkpoint's own template,
whose text says nothing of who wrote what: that is found by rendering the
conversation up to each of the assistant's turns.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from research.data import sandbox

Message = Mapping[str, str]
# Added tokens that are the assistant's to write, whatever a file says.
THINK = ("<think>", "</think>")
# Breaks up what content spells like a mark; taken out before encoding.
HIDDEN = "\ufdd2"
RESERVED = (sandbox.OPENED, sandbox.CLOSED, HIDDEN)
# A conversation to learn a template from.
CHAT = (
  {"role": "user", "content": "Ask"},
  {"role": "assistant", "content": "Reply"},
  {"role": "user", "content": "Ask"},
)


class Turns(Protocol):
  """The marks around a turn, where they are the same for every one."""

  @property
  def end(self) -> int:
    """Closes a turn."""
    ...

  @property
  def after_end(self) -> tuple[int, ...]:
    """Follows `end` between turns."""
    ...

  def opening(self, role: str) -> list[int]:
    """Ids that open a turn of `role`."""
    ...

  def encode(self, text: str) -> list[int]:
    """Ids of plain text."""
    ...


def by_turns(
  marks: Turns, messages: Sequence[Message], generate: bool
) -> list[tuple[list[int], int]]:
  """Pieces (ids, 1 where the assistant's) of turns between fixed marks."""
  pieces = []
  for message in messages:
    written = [*marks.encode(message["content"]), marks.end]
    pieces += [
      (marks.opening(message["role"]), 0),
      (written, int(message["role"] == "assistant")),
      (list(marks.after_end), 0),
    ]
  return [*pieces, (marks.opening("assistant"), 0)] if generate else pieces


@dataclasses.dataclass(frozen=True)
class Template:
  """A checkpoint's chat template, and what was learned of it.

  `place` is its file; `variables` are the tokens that it may name; `end` closes
  the assistant's turn; `prefill` is what the generation prompt writes in the
  assistant's name; `marks` are the tokens that only the template may write.
  """

  place: str
  source: str
  variables: Mapping[str, Any]
  end: str = ""
  prefill: str = ""
  marks: tuple[str, ...] = ()

  @functools.cached_property
  def pattern(self) -> re.Pattern[str]:
    """Finds the marks, each as a group."""
    longest = sorted(self.marks, key=lambda mark: (-len(mark), mark))
    return re.compile(f"({'|'.join(map(re.escape, longest))})")

  def texts(self, asked: Sequence[tuple[Sequence[Message], bool]]) -> list[str]:
    """Renders each (messages, with generation prompt)."""
    calls = [
      {
        **self.variables,
        "messages": list(messages),
        "tools": None,
        "documents": None,
        "add_generation_prompt": generate,
      }
      for messages, generate in asked
    ]
    try:
      return sandbox.render(self.source, calls)
    except ValueError as error:
      raise ValueError(f"{self.place}: the chat template {error}") from None


def learn(template: Template, added: Mapping[str, bool]) -> Template:
  """Completes a template, given the added tokens and which are special.

  Raises ValueError for a template that hides where the assistant's turn begins
  or ends.
  """
  asked = [(CHAT[:1], False), (CHAT[:1], True), (CHAT, False)]
  before, prompt, whole = map(without_blocks, template.texts(asked))
  turn = whole.removeprefix(before)
  header, replied, behind = turn.partition(CHAT[1]["content"])
  opening = prompt.removeprefix(before + header)
  if turn == whole or not replied or opening == prompt:
    raise ValueError(
      f"{template.place}: the chat template does not open the assistant's turn "
      "with its generation prompt, so what the assistant wrote cannot be told"
    )
  ends = [t for t in added if behind.lstrip().startswith(t)]
  end = max(ends, key=len, default="")
  if not end or end in header:
    raise ValueError(
      f"{template.place}: the chat template closes the assistant's turn with "
      "no token of its own, so a sampler could not stop"
    )
  shown = before + header + end
  marks = {t for t, special in added.items() if special or t in shown}
  marks = tuple(sorted(t for t in marks - set(THINK) if len(t) > 1))
  return dataclasses.replace(template, end=end, prefill=opening, marks=marks)


def by_template(
  template: Template, messages: Sequence[Message], generate: bool
) -> list[tuple[str, int]]:
  """Pieces (text, 1 where the assistant's) as the template lays them out.

  `{% generation %}` blocks say what is the assistant's; without them it is the
  content and the token that closes the turn. A turn of which the template shows
  only a part, such as reasoning dropped from history, is context: 0. The last
  turn is never cut so: it continues the generation prompt, as when sampled.
  Content that spells a mark has HIDDEN within. Raises ValueError where it
  cannot be told what is the assistant's.
  """
  messages = [
    {"role": m["role"], "content": _hide(template, m["content"])}
    for m in messages
  ]
  if re.search(r"{%-?\s*generation\s*-?%}", template.source):
    (text,) = template.texts([(messages, generate)])
    parts = re.split(f"[{sandbox.OPENED}{sandbox.CLOSED}]", text)
    return [(part, i % 2) for i, part in enumerate(parts)]
  turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
  if 0 in turns:
    raise ValueError("a conversation cannot begin with the assistant's turn")
  asked = [(messages[:i], g) for i in turns for g in (False, True)]
  whole, *said = template.texts([(messages, generate), *asked])
  spans = []
  for i, before, prompt in zip(turns, said[::2], said[1::2], strict=True):
    content = messages[i]["content"]
    start, close = _place(template, whole, before, prompt, content)
    if start is not None:
      spans.append((start, close))
    elif i + 1 == len(messages) and not generate:
      written = prompt + _rest(template, content) + template.end
      spans.append((len(prompt), len(written)))
      whole = written + whole[close:]
  return list(_cut(whole, spans))


def _place(
  template: Template, whole: str, before: str, prompt: str, content: str
) -> tuple[int | None, int]:
  """Where the words of the turn behind `before` begin, or None, and end."""
  stop = whole.find(template.end, len(before))
  if not (whole.startswith(before) and prompt.startswith(before)) or stop < 0:
    raise ValueError(
      f"{template.place}: the chat template writes the turns before an answer "
      "otherwise once the answer is there, so what the assistant wrote cannot "
      "be told; let one user's turn precede each of the assistant's"
    )
  opening = prompt[len(before) :]
  openings = (opening, opening.removesuffix(template.prefill))
  start = _start(whole[len(before) : stop], openings, content)
  close = stop + len(template.end)
  return (None if start is None else len(before) + start), close


def _start(turn: str, openings: Sequence[str], content: str) -> int | None:
  """Where the assistant's words begin in a turn; None if some are missing.

  White space is the template's to change. What it writes between its opening
  and the words, such as an empty thought, is its own, to the end of the line.
  """
  seen = [i for i, c in enumerate(turn) if not c.isspace()]
  said = "".join(content.split())
  words = seen[len(seen) - len(said) :] if said else [len(turn)]
  if said and "".join(turn[i] for i in words) != said:
    return None
  first = words[0]
  for opening in openings:
    if turn.startswith(opening) and not turn[len(opening) : first].strip():
      return len(opening)
  indent = content[: len(content) - len(content.lstrip())].splitlines()[-1:]
  led = "".join(indent)
  return first - len(led) * turn[:first].endswith(led)


def _rest(template: Template, content: str) -> str:
  """What of `content` follows the prefill, which is written once."""
  mark = template.prefill.strip()
  rest = content
  if mark and content.lstrip().startswith(mark):
    behind = template.prefill[len(template.prefill.rstrip()) :]
    rest = content.lstrip().removeprefix(mark).removeprefix(behind)
  if mark and mark in rest:
    raise ValueError(
      f"{template.place}: the chat template drops a part of an answer that "
      f"writes {mark} in its middle; let it begin with that, or leave it out"
    )
  return rest


def _cut(
  text: str, spans: Iterable[tuple[int, int]]
) -> Iterable[tuple[str, int]]:
  """The pieces of `text` in and between the spans."""
  at = 0
  for start, stop in spans:
    yield text[at:start], 0
    yield text[start:stop], 1
    at = stop
  yield text[at:], 0


def _hide(template: Template, content: str) -> str:
  """Breaks up every mark that `content` spells."""
  if any(c in content for c in RESERVED):
    raise ValueError(
      "content has U+FDD0, U+FDD1 or U+FDD2, which Unicode keeps for internal "
      "use: remove them"
    )
  while template.pattern.search(content):
    content = template.pattern.sub(lambda m: HIDDEN.join(m[0]), content)
  return content


def without_blocks(text: str) -> str:
  """Text without the marks of generation blocks."""
  return text.replace(sandbox.OPENED, "").replace(sandbox.CLOSED, "")
