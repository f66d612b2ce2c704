"""What was asked of a paid endpoint, and what came back: one line an event.

The file is only ever appended to, a line at a time, and flushed to the disk
before a request leaves and after its answer came. So a process that was killed
knows what it has been told, and which requests were on their way.

What nobody told is charged at an estimate that is no less: the event has its
"estimated" tokens, of the prompt and of the answer. That of a request that is
asked counts only if its end is never told, as after a kill.
"""

import dataclasses
import json
import os
import pathlib
import threading
from typing import Any

from research.teachers.answers import Answer

Tokens = tuple[int, int]  # of a prompt, of an answer
NONE: Tokens = 0, 0


@dataclasses.dataclass(frozen=True)
class Spent:
  """What all requests cost so far; `repeated` were asked again after a kill.

  A prompt that failed and was answered on another day counts as both. Of the
  prompt's and the answers' tokens, `estimated_tokens` were told by nobody.
  """

  requests: int
  repeated: int
  answered: int
  failed: int
  prompt_tokens: int
  completion_tokens: int
  estimated_tokens: int

  def add(self, **counts: int) -> "Spent":
    """Returns the sums with these added."""
    sums = {name: getattr(self, name) + n for name, n in counts.items()}
    return dataclasses.replace(self, **sums)


class Ledger:
  """The events of one file, and what is known from them; threads may share it.

  A broken last line, which a kill leaves, is passed over.
  """

  def __init__(self, path: pathlib.Path):
    """Reads what is there; raises ValueError for a line that is no event."""
    self._lock = threading.Lock()
    self._answers: dict[str, Answer] = {}
    self._pending: dict[str, Tokens] = {}
    self._spent = Spent(0, 0, 0, 0, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.read_bytes() if path.exists() else b""
    kept = whole[: whole.rfind(b"\n") + 1]
    for n, line in enumerate(kept.splitlines(), 1):
      try:
        self._take(json.loads(line))
      except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {n}: no event: {error!r}") from error
    self._file = path.open("ab")
    self._file.truncate(len(kept))
    # Those that a killed process had on their way.
    self._left = set(self._pending)
    for name in self._left:
      self._charge(self._pending.pop(name))

  def _take(self, event: dict[str, Any]) -> None:
    name, estimated = event["id"], event.get("estimated", NONE)
    before = self._pending.pop(name, NONE)
    if event["event"] == "asked":
      self._charge(before)  # a process was killed in between
      self._pending[name] = estimated
      self._spent = self._spent.add(requests=1, repeated=event["repeated"])
      return
    self._charge(estimated)
    if event["event"] == "lost":
      return
    fields = dataclasses.fields(Answer)
    answer = Answer(**{f.name: event[f.name] for f in fields})
    self._spent = self._spent.add(
      answered=answer.text is not None,
      failed=answer.text is None,
      prompt_tokens=answer.prompt_tokens,
      completion_tokens=answer.completion_tokens,
    )
    self._answers[name] = answer

  def _charge(self, estimated: Tokens) -> None:
    prompt, completion = estimated
    self._spent = self._spent.add(
      prompt_tokens=prompt,
      completion_tokens=completion,
      estimated_tokens=prompt + completion,
    )

  def _write(self, event: dict[str, Any]) -> None:
    with self._lock:
      self._take(event)
      self._file.write(json.dumps(event).encode() + b"\n")
      self._file.flush()
      os.fsync(self._file.fileno())

  def answer(self, name: str) -> Answer | None:
    """Returns what came back for a request, errors aside; None: ask."""
    found = self._answers.get(name)
    return None if found is None or found.text is None else found

  def ask(self, name: str, most: Tokens = NONE) -> None:
    """Notes that a request is about to leave, and what it may cost."""
    with self._lock:
      repeated = name in self._left
      self._left.discard(name)
    self._note("asked", name, most, repeated=repeated)

  def lose(self, name: str, error: str, estimated: Tokens = NONE) -> None:
    """Notes that no whole answer came back, and what that may have cost."""
    self._note("lost", name, estimated, error=error)

  def store(self, name: str, answer: Answer, estimated: Tokens = NONE) -> None:
    """Notes what came back; `estimated` is for what the answer does not say."""
    self._note("answered", name, estimated, **dataclasses.asdict(answer))

  def _note(self, kind: str, name: str, estimated: Tokens, **rest: Any) -> None:
    event = {"event": kind, "id": name, **rest}
    if estimated != NONE:
      event["estimated"] = estimated
    self._write(event)

  def spent(self) -> Spent:
    """Returns the sums of all events."""
    return self._spent

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
