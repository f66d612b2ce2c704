"""The one place that tokenises: tokenizers, the chat template, examples.

Token ids travel from here on; nothing downstream decodes and encodes again,
because that drifts (a sampled `a`,`b` comes back as the merged `ab`).
"""

import codecs
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from research.data import hf_tokenizer, template
from research.data.template import Message

ROLES = ("system", "user", "assistant")


class Tokenizer(Protocol):
  """Text to token ids and back, and how a conversation is laid out."""

  @property
  def name(self) -> str:
    """What `load_tokenizer` takes."""
    ...

  @property
  def size(self) -> int:
    """One more than the largest id that text, turns or padding can have."""
    ...

  @property
  def pad(self) -> int:
    """Fills rows; told apart by segment 0, so it may equal `end`."""
    ...

  @property
  def end(self) -> int:
    """Closes the assistant's turn: the first of `stops`."""
    ...

  @property
  def stops(self) -> tuple[int, ...]:
    """The ids at each of which a sampler stops."""
    ...

  @property
  def bos(self) -> int | None:
    """Opens a conversation, where it has such a token."""
    ...

  @property
  def prefill(self) -> str:
    """What `render(..., generate=True)` writes in the assistant's name.

    The assistant's text is this and what a sampler writes behind it.
    """
    ...

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; never a special id, whatever the text says."""
    ...

  def piece(self, i: int) -> bytes:
    """The bytes that an id stands for; 0xFF, in no text, for no text."""
    ...

  def tokens(self) -> dict[int, str]:
    """Every id's token, spelled."""
    ...

  def lay_out(
    self, messages: Sequence[Message], generate: bool
  ) -> list[tuple[list[int], int]]:
    """Pieces of a conversation: ids, and 1 where they are the assistant's."""
    ...

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map, the specials and the template."""
    ...


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
  """UTF-8 bytes as ids 0..255, then a token each for roles, end and pad."""

  name: str = "bytes"
  size: int = 261
  end: int = 259
  pad: int = 260
  bos: None = None
  prefill: str = ""
  after_end: tuple[int, ...] = ()

  @property
  def stops(self) -> tuple[int, ...]:
    """`end` alone."""
    return (self.end,)

  def encode(self, text: str) -> list[int]:
    """The UTF-8 bytes of `text`."""
    return list(text.encode("utf-8"))

  def piece(self, i: int) -> bytes:
    """The byte; specials are no text."""
    return bytes([i]) if 0 <= i < 256 else hf_tokenizer.NO_TEXT

  def tokens(self) -> dict[int, str]:
    """The bytes in GPT-2's letters and the specials, as files spell them."""
    specials = enumerate((*ROLES, "end", "pad"), 256)
    return hf_tokenizer.letters() | {i: f"<|{name}|>" for i, name in specials}

  def opening(self, role: str) -> list[int]:
    """The one token 256, 257 or 258 that opens a turn."""
    return [256 + ROLES.index(role)]

  def lay_out(
    self, messages: Sequence[Message], generate: bool
  ) -> list[tuple[list[int], int]]:
    """Pieces of a conversation: ids, and 1 where they are the assistant's."""
    return template.by_turns(self, messages, generate)

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map and the specials."""
    return hf_tokenizer.digest(self.tokens(), dataclasses.asdict(self))


def load_tokenizer(name: str) -> Tokenizer:
  """The tokenizer of `name`: "bytes", or a tokenizer.json or its folder.

  The chat template and the stop tokens are read from the files beside it.
  Raises FileNotFoundError for a missing file, ValueError for one that is broken
  or of an unknown kind, and where neither a template nor ChatML's tokens say
  how to lay out a conversation.
  """
  if name == "bytes":
    return ByteTokenizer()
  path = pathlib.Path(name)
  if path.is_dir():
    path = path / "tokenizer.json"
  if not path.is_file():
    raise FileNotFoundError(
      f"{path}: no tokenizer there; give the path of a tokenizer.json, or "
      '"bytes", which needs no file'
    )
  return hf_tokenizer.load(path)


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
  """Text of `ids`: specials are spelled, what is no text is U+FFFD."""
  return show(tokenizer, ids, last=True)[0]


def show(
  tokenizer: Tokenizer,
  ids: Iterable[int],
  pending: bytes = b"",
  *,
  last: bool = False,
) -> tuple[str, bytes]:
  """The text that `ids` complete, and the bytes of a character yet to come.

  Give those bytes back with the next ids; the texts joined, the last one taken
  with `last`, are the text of all ids. No character is ever shown in part.
  """
  read = pending + b"".join(tokenizer.piece(int(i)) for i in ids)
  text, used = codecs.utf_8_decode(read, "replace", last)
  return text, read[used:]


def shared_rows(teacher: Tokenizer, student: Tokenizer) -> int:
  """The rows of an embedding to which both tokenizers give the same tokens.

  What a model has beyond them is padding: 151,936 and 152,064 rows may hold one
  vocabulary. (A model may have fewer, where the last specials are unused.)
  Raises ValueError naming the first id whose token differs.
  """
  taught, learned = teacher.tokens(), student.tokens()
  rows = max(taught.keys() | learned.keys()) + 1
  for i in range(rows):
    if taught.get(i) != learned.get(i):
      raise ValueError(
        f"id {i} is {taught.get(i)!r} to the teacher's tokenizer "
        f"{teacher.name!r} and {learned.get(i)!r} to the student's "
        f"{student.name!r}: distributions over different tokens cannot be "
        "compared; use a teacher and a student of one vocabulary"
      )
  return rows


class Rendered(NamedTuple):
  """A conversation as ids int32[n], and mask int8[n]: 1 = the assistant's."""

  ids: np.ndarray
  mask: np.ndarray


def render(
  tokenizer: Tokenizer,
  messages: Sequence[Message],
  *,
  generate: bool = False,
) -> Rendered:
  """Renders `messages`, each `{"role", "content"}`, as ids and a mask.

  The mask is 1 on what the assistant wrote, the token that closes its turn
  included, and 0 on what is written for it: headers, a prefill, and earlier
  answers that the template shows without their reasoning. With `generate` the
  assistant's opening follows, so that a sampler can go on: those ids are an
  exact prefix of the ids of the same messages plus an answer, unless the
  template lays the answer out otherwise than its own generation prompt.
  Text is always split in tokens where the assistant begins, as a sampler must.
  Raises ValueError for no messages, for an empty or unknown role, for content
  that is not text, and for what the template refuses or hides.
  """
  if not messages:
    raise ValueError("a conversation without messages cannot be rendered")
  told = [checked(message) for message in messages]
  pieces = tokenizer.lay_out(told, generate)
  ids = [i for piece, _ in pieces for i in piece]
  mask = [mine for piece, mine in pieces for _ in piece]
  return Rendered(np.array(ids, np.int32), np.array(mask, np.int8))


def between(tokenizer: Tokenizer, said: str) -> np.ndarray:
  """Returns the ids from behind a sampled stop token to the assistant's next.

  They say `said` in the user's name. Behind them a conversation of sampled
  tokens goes on without being tokenised anew. Raises ValueError for a template
  that shows nothing of earlier answers: it cannot go on behind one.
  """
  before = {"role": "user", "content": "Ask"}
  reply = {"role": "assistant", "content": "Reply"}
  asked = {"role": "user", "content": said}
  ids, mask = render(tokenizer, [before, reply, asked], generate=True)
  if not mask.any():
    raise ValueError("the chat template hides earlier answers: no turns behind")
  return ids[np.flatnonzero(mask)[-1] + 1 :]


def checked(message: Message) -> Message:
  """A message's role and content; ValueError where one is wrong."""
  role, content = message.get("role"), message.get("content")
  if role not in ROLES:
    raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
  if not isinstance(content, str):
    raise ValueError(f"the {role}'s content must be text, not {content!r}")
  return {"role": role, "content": content}


def messages_of(record: Mapping[str, Any]) -> list[Message]:
  """The messages of a record: its `messages`, or `prompt` and `completion`."""
  if "messages" in record:
    return list(record["messages"])
  if "prompt" not in record or "completion" not in record:
    raise ValueError(
      "a conversation needs `messages`, or `prompt` and `completion`; this "
      f"record has {sorted(record)}"
    )
  return [
    {"role": "user", "content": record["prompt"]},
    {"role": "assistant", "content": record["completion"]},
  ]


def example(
  tokenizer: Tokenizer, record: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Renders a record for training: `tokens` int32[n] and `mask` int8[n].

  Of a conversation the assistant's tokens are learned, of a document (`text`)
  all, however long it is; a piece that `cut` made is given back as it is.
  Raises ValueError where the assistant writes nothing: nothing could be
  learned from it.
  """
  # A user's record may have a field of that name, and it is no array.
  if isinstance(record.get("tokens"), np.ndarray):
    return dict(record)
  if "text" in record:
    return _learned(_document(tokenizer, record["text"]))
  ids, mask = render(tokenizer, messages_of(record))
  if not mask.any():
    raise ValueError("no token is the assistant's: nothing to learn from")
  return {"tokens": ids, "mask": mask}


def cut(
  tokenizer: Tokenizer, records: Iterable[Mapping[str, Any]], length: int
) -> Iterator[Mapping[str, Any]]:
  """The records, documents as pieces of at most `length` tokens.

  Each piece opens with the last token of the one before it, which it does not
  learn, so that all pieces together learn every token of a document once.
  Conversations are never cut: half of one teaches what nobody said. Raises
  ValueError where `length` has no room for a token and what it follows.
  """
  if length < 2:
    raise ValueError(f"a row of {length} tokens has nothing to predict")
  for record in records:
    if "text" not in record:
      yield record
      continue
    ids = _document(tokenizer, record["text"])
    for start in range(0, len(ids) - 1, length - 1):
      yield _learned(ids[start : start + length])


def _document(tokenizer: Tokenizer, said: str) -> np.ndarray:
  """A document's ids int32[n]: it is opened by `bos` or `end`, closed by `end`.

  What opens it is there so that its first token, too, follows something.
  """
  opening = tokenizer.end if tokenizer.bos is None else tokenizer.bos
  return np.array([opening, *tokenizer.encode(said), tokenizer.end], np.int32)


def _learned(ids: np.ndarray) -> dict[str, np.ndarray]:
  """An example of which all but the first token are learned."""
  mask = np.ones(len(ids), np.int8)
  mask[0] = 0
  return {"tokens": ids, "mask": mask}
