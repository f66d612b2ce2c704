"""The one place that tokenises: tokenizers, the chat template, examples.

Token ids travel from here on; nothing downstream decodes and encodes again,
because that drifts (a sampled `a`,`b` comes back as the merged `ab`).
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tokenizers

ROLES = ("system", "user", "assistant")
START, END = "<|im_start|>", "<|im_end|>"
# Where a file declares no padding, the first of these that it knows pads.
PADS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")

Message = Mapping[str, str]


class Tokenizer(Protocol):
  """Text to token ids and back, and the marks that delimit a turn."""

  @property
  def name(self) -> str:
    """What `load_tokenizer` takes."""
    ...

  @property
  def size(self) -> int:
    """One more than the largest id."""
    ...

  @property
  def pad(self) -> int:
    """Fills rows; told apart by segment 0, so it may equal `end`."""
    ...

  @property
  def end(self) -> int:
    """Closes a turn; a sampler stops at it."""
    ...

  @property
  def bos(self) -> int | None:
    """Opens a conversation, where the vocabulary has such a token."""
    ...

  @property
  def after_end(self) -> tuple[int, ...]:
    """Follows `end` between turns."""
    ...

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; never a special id, whatever the text says."""
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids: specials are spelled, what is no text is U+FFFD."""
    ...

  def opening(self, role: str) -> list[int]:
    """Ids that open a turn of `role`."""
    ...

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map and the specials."""
    ...


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
  """UTF-8 bytes as ids 0..255, then a token each for roles, end and pad."""

  name: str = "bytes"
  size: int = 261
  end: int = 259
  pad: int = 260
  bos: None = None
  after_end: tuple[int, ...] = ()

  def encode(self, text: str) -> list[int]:
    """The UTF-8 bytes of `text`."""
    return list(text.encode("utf-8"))

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the bytes; specials and broken sequences become U+FFFD."""
    # 0xFF is in no UTF-8 text
    data = bytes(int(i) if 0 <= i < 256 else 0xFF for i in ids)
    return data.decode("utf-8", errors="replace")

  def opening(self, role: str) -> list[int]:
    """The one token 256, 257 or 258 that opens a turn."""
    return [256 + ROLES.index(role)]

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map and the specials."""
    tokens = {i: bytes([i]).hex() for i in range(256)}
    return _digest(tokens, specials(self))


@dataclasses.dataclass(frozen=True)
class FileTokenizer:
  """A `tokenizer.json` that knows `<|im_start|>` and `<|im_end|>`."""

  name: str
  size: int
  end: int
  pad: int
  bos: int | None
  after_end: tuple[int, ...]
  start: int
  inner: tokenizers.Tokenizer

  def encode(self, text: str) -> list[int]:
    """Ids of plain text, without BOS; a special's spelling stays text."""
    return self.inner.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    """Text of `ids`; specials are spelled, unknown ids become U+FFFD."""
    runs: list[list[int]] = [[]]
    for i in map(int, ids):
      if self.inner.id_to_token(i) is None:
        runs.append([])
      else:
        runs[-1].append(i)
    spelled = [self.inner.decode(r, skip_special_tokens=False) for r in runs]
    return "\ufffd".join(spelled)

  def opening(self, role: str) -> list[int]:
    """`<|im_start|>`, the role's name and a line break."""
    return [self.start, *self.encode(f"{role}\n")]

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map and the specials."""
    vocab = self.inner.get_vocab(with_added_tokens=True)
    return _digest({i: token for token, i in vocab.items()}, specials(self))


def specials(tokenizer: Tokenizer) -> dict[str, Any]:
  """The structural ids of `tokenizer`, by purpose."""
  turns = {role: tokenizer.opening(role) for role in ROLES}
  rest = ("size", "pad", "end", "bos", "after_end")
  return turns | {name: getattr(tokenizer, name) for name in rest}


def load_tokenizer(name: str) -> Tokenizer:
  """The tokenizer that `name` stands for: "bytes" or a tokenizer.json's path.

  Raises FileNotFoundError for a missing file, ValueError for one that is not a
  tokenizer or lacks the ChatML tokens.
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
  return _from_file(path)


def _from_file(path: pathlib.Path) -> FileTokenizer:
  """Reads a tokenizer.json, its truncation and padding switched off."""
  inner = _with_marked_specials(path)
  pad = (inner.padding or {}).get("pad_id")
  inner.no_padding()
  inner.no_truncation()
  # The templated ids of some text are [bos] + plain ids, or the plain ids.
  templated = inner.encode("0", add_special_tokens=True).ids
  plain = inner.encode("0", add_special_tokens=False).ids
  has_bos = bool(plain) and templated[1 : 1 + len(plain)] == plain
  ids = inner.get_vocab(with_added_tokens=True)
  if pad is None:
    pad = next((ids[token] for token in PADS if token in ids), ids[END])
  return FileTokenizer(
    name=str(path),
    size=max(ids.values()) + 1,
    start=ids[START],
    end=ids[END],
    pad=pad,
    bos=templated[0] if has_bos else None,
    after_end=tuple(inner.encode("\n", add_special_tokens=False).ids),
    inner=inner,
  )


def _with_marked_specials(path: pathlib.Path) -> tokenizers.Tokenizer:
  """Loads `path` so that user text can never spell a structural token.

  The library keeps such text plain only for tokens marked special, and some
  files leave `<|im_end|>` unmarked; so the marks are set here.
  """
  try:
    spec = json.loads(path.read_text(encoding="utf-8"))
    added = spec["added_tokens"]
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path} is not a tokenizer.json: {error!r}") from error
  missing = {START, END} - {token["content"] for token in added}
  if missing:
    raise ValueError(
      f"{path} has no {' and no '.join(sorted(missing))} among its added "
      'tokens; use a tokenizer with the ChatML tokens (Qwen\'s), or "bytes"'
    )
  for token in added:
    token["special"] |= token["content"] in (START, END, *PADS)
  inner = tokenizers.Tokenizer.from_str(json.dumps(spec))
  inner.encode_special_tokens = True
  return inner


def _digest(tokens: Mapping[int, str], marks: Mapping[str, Any]) -> str:
  """SHA-256 of a vocabulary, independent of the order it was read in."""
  text = json.dumps([sorted(tokens.items()), sorted(marks.items())])
  return hashlib.sha256(text.encode()).hexdigest()


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

  The mask is 1 on every token that the assistant wrote, `end` included. With
  `generate` the assistant's opening follows, so that a sampler can go on: those
  ids are an exact prefix of the ids of the same messages plus an answer.
  Raises ValueError for no messages, for an empty or unknown role, and for
  content that is not text.
  """
  if not messages:
    raise ValueError("a conversation without messages cannot be rendered")
  ids = [] if tokenizer.bos is None else [tokenizer.bos]
  mask = [0] * len(ids)
  for message in messages:
    role, content = checked(message)
    opening = tokenizer.opening(role)
    written = [*tokenizer.encode(content), tokenizer.end]
    ids += [*opening, *written, *tokenizer.after_end]
    mask += [0] * len(opening)
    mask += [int(role == "assistant")] * len(written)
    mask += [0] * len(tokenizer.after_end)
  if generate:
    opening = tokenizer.opening("assistant")
    ids += opening
    mask += [0] * len(opening)
  return Rendered(np.array(ids, np.int32), np.array(mask, np.int8))


def checked(message: Message) -> tuple[str, str]:
  """The role and the content of a message; ValueError where one is wrong."""
  role, content = message.get("role"), message.get("content")
  if role not in ROLES:
    raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
  if not isinstance(content, str):
    raise ValueError(f"the {role}'s content must be text, not {content!r}")
  return role, content


def messages_of(record: Mapping[str, Any]) -> list[Message]:
  """The messages of a record: its `messages`, or `prompt` and `completion`."""
  if "messages" in record:
    return list(record["messages"])
  if "prompt" not in record or "completion" not in record:
    raise ValueError(
      "a record needs `messages`, or `prompt` and `completion`; this one has "
      f"{sorted(record)}"
    )
  return [
    {"role": "user", "content": record["prompt"]},
    {"role": "assistant", "content": record["completion"]},
  ]


def example(
  tokenizer: Tokenizer, record: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Renders a record for training: `tokens` int32[n] and `mask` int8[n].

  Raises ValueError where the assistant writes nothing: nothing could be
  learned from it.
  """
  ids, mask = render(tokenizer, messages_of(record))
  if not mask.any():
    raise ValueError("no message is the assistant's: nothing to learn from")
  return {"tokens": ids, "mask": mask}
