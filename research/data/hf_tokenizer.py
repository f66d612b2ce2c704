"""Tokenizers of published checkpoints: tokenizer.json and what lies beside it.

`tokenizer_config.json` names the special tokens and may hold the chat template,
`chat_template.jinja` too; `generation_config.json` says where to stop.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from research.data import template as templates
from research.data.template import Message, Template

START, END = "<|im_start|>", "<|im_end|>"
# Where no file declares a padding, the first of these that is known pads.
PADS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]")
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
SENTENCEPIECE = [
  {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
  {"type": "ByteFallback"},
  {"type": "Fuse"},
]
NO_TEXT = b"\xff"  # a byte that is in no UTF-8
# How a tokenizer of bytes lays out a conversation: turn by turn.
BY_TURNS = (
  "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
  "{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
  "{% else %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclasses.dataclass(frozen=True)
class FileTokenizer:
  """A tokenizer.json with its chat template, or with the ChatML tokens."""

  name: str
  size: int
  pad: int
  bos: int | None
  stops: tuple[int, ...]
  inner: tokenizers.Tokenizer
  bytelevel: bool
  template: Template | None = None

  def __reduce__(self) -> Any:
    """A copy is read anew: the library's own spells specials from text."""
    return load, (pathlib.Path(self.name),)

  @property
  def end(self) -> int:
    """Closes the assistant's turn."""
    return self.stops[0]

  @property
  def prefill(self) -> str:
    """What the generation prompt writes in the assistant's name."""
    return self.template.prefill if self.template else ""

  @property
  def after_end(self) -> tuple[int, ...]:
    """The line break between turns, in ChatML."""
    return tuple(self.encode("\n"))

  def opening(self, role: str) -> list[int]:
    """`<|im_start|>`, the role's name and a line break: ChatML's."""
    return [_id(self.inner, START), *self.encode(f"{role}\n")]

  def encode(self, text: str) -> list[int]:
    """Ids of plain text, without BOS; a special's spelling stays text."""
    return self.inner.encode(text, add_special_tokens=False).ids

  def piece(self, i: int) -> bytes:
    """The bytes that an id stands for; specials are spelled."""
    return _piece(self.inner.id_to_token(i), self.bytelevel)

  def tokens(self) -> dict[int, str]:
    """Every id's token, as the file spells it."""
    vocab = self.inner.get_vocab(with_added_tokens=True)
    return {i: token for token, i in vocab.items()}

  def lay_out(
    self, messages: Sequence[Message], generate: bool
  ) -> list[tuple[list[int], int]]:
    """Pieces of a conversation: ids, and 1 where they are the assistant's."""
    if self.template is None:
      bos = [] if self.bos is None else [self.bos]
      return [(bos, 0), *templates.by_turns(self, messages, generate)]
    pieces = templates.by_template(self.template, messages, generate)
    return [(self._marked(text), mine) for text, mine in pieces]

  def _marked(self, text: str) -> list[int]:
    """Ids of a template's text: its marks, and the plain text between."""
    assert self.template
    ids: list[int] = []
    for i, part in enumerate(self.template.pattern.split(text)):
      if i % 2:
        ids.append(_id(self.inner, part))
      else:
        ids += self.encode(part.replace(templates.HIDDEN, ""))
    return ids

  def fingerprint(self) -> str:
    """SHA-256 of the id to token map, the specials and the template."""
    kept = ("size", "pad", "bos", "stops")
    marks: dict[str, Any] = {name: getattr(self, name) for name in kept}
    if self.template is not None:
      marks["template"] = self.template.source
      marks["variables"] = self.template.variables
    return digest(self.tokens(), marks)


def _id(inner: tokenizers.Tokenizer, token: str) -> int:
  """The id of a token that is known to be there."""
  found = inner.token_to_id(token)
  assert found is not None, token
  return found


def digest(tokens: Mapping[int, str], marks: Mapping[str, Any]) -> str:
  """SHA-256 of a vocabulary, independent of the order it was read in."""
  text = json.dumps([sorted(tokens.items()), marks], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def letters() -> dict[int, str]:
  """GPT-2's table: the letter that stands for each byte."""
  kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
  rest = [b for b in range(256) if b not in kept]
  codes = [*kept, *range(256, 256 + len(rest))]
  return {b: chr(c) for b, c in zip(kept + rest, codes, strict=True)}


@functools.cache
def _byte_of() -> dict[str, int]:
  """That table backwards."""
  return {letter: b for b, letter in letters().items()}


@functools.lru_cache(maxsize=1 << 18)
def _piece(token: str | None, bytelevel: bool) -> bytes:
  """The bytes of a token, byte-level or of SentencePiece's kind."""
  if token is None:
    return NO_TEXT
  if bytelevel:
    table = _byte_of()
    whole = all(c in table for c in token)
    return bytes(table[c] for c in token) if whole else token.encode()
  if len(token) == 6 and token.startswith("<0x"):
    return bytes([int(token[3:5], 16)])
  return token.replace("\u2581", " ").encode()


def load(path: pathlib.Path) -> FileTokenizer:
  """Reads `path`, a tokenizer.json, and the files beside it.

  Raises ValueError, naming the file, for one that is broken, for a conversation
  that cannot be laid out, and for a kind of tokenizer that is not known.
  """
  spec = _json(path)
  added = _added(spec, path)
  beside = path.parent / "tokenizer_config.json"
  config = _json(beside, {})
  named = _named(config, beside)
  source, place = _source(config, beside)
  if source is None:
    _check_chatml(path, added)
    template = None
    marks = {t for t, special in added.items() if special} | {START, END, *PADS}
  else:
    template = templates.learn(Template(place, source, named), added)
    marks = set(template.marks)
  for token in spec["added_tokens"]:
    token["special"] = token["content"] in marks
  inner = _inner(spec, path)
  for key, token in named.items():
    if inner.token_to_id(token) is None:
      raise ValueError(f"{beside}: {key} {token!r} is not in {path.name}")
  end = _id(inner, template.end if template else END)
  tokenizer = FileTokenizer(
    name=str(path),
    size=0,  # known when a conversation can be laid out
    pad=_pad(spec, path, inner, named, end),
    bos=_bos(inner),
    stops=_stops(path.parent / "generation_config.json", inner, end),
    inner=inner,
    bytelevel=_bytelevel(spec, path),
    template=template,
  )
  tokenizer = _checked(tokenizer, named.get("bos_token"))
  return dataclasses.replace(tokenizer, size=_size(tokenizer, marks))


def _size(tokenizer: FileTokenizer, marks: set[str]) -> int:
  """One more than the largest id that text, turns or padding can have.

  Some files end in specials that no model of theirs has a row for: Gemma 3's
  smallest is without its image token.
  """
  pieces = tokenizer.lay_out(templates.CHAT, True)
  written = [i for piece, _ in pieces for i in piece]
  plain = [i for i, t in tokenizer.tokens().items() if t not in marks]
  return max(*plain, *written, *tokenizer.stops, tokenizer.pad) + 1


def _json(path: pathlib.Path, absent: Any = None) -> Any:
  """The object in a JSON file; `absent` where there is no file."""
  if absent is not None and not path.exists():
    return absent
  try:
    said = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is not a {path.name}: {error}") from error
  if not isinstance(said, dict):
    raise ValueError(f"{path} is not a {path.name}: it holds no object")
  return said


def _added(spec: dict[str, Any], path: pathlib.Path) -> dict[str, bool]:
  """The added tokens of a tokenizer.json, and whether each is special."""
  try:
    return {t["content"]: bool(t["special"]) for t in spec["added_tokens"]}
  except (KeyError, TypeError) as error:
    raise ValueError(f"{path} is not a tokenizer.json: {error!r}") from error


def _named(beside: dict[str, Any], path: pathlib.Path) -> dict[str, str]:
  """The special tokens that tokenizer_config.json names, as spelled."""
  named = {k: beside[k] for k in NAMES if beside.get(k) is not None}
  for key, token in named.items():
    named[key] = token.get("content") if isinstance(token, dict) else token
    if not isinstance(named[key], str):
      raise ValueError(f"{path}: {key} is {token!r}, which spells no token")
  return named


def _source(
  beside: dict[str, Any], path: pathlib.Path
) -> tuple[str | None, str]:
  """The chat template of a folder, None without one, and its file's name."""
  alone = path.parent / "chat_template.jinja"
  if alone.exists():
    return alone.read_bytes().decode("utf-8", "replace"), str(alone)
  source = beside.get("chat_template")
  if isinstance(source, list):
    objects = [t for t in source if isinstance(t, dict)]
    named = {t.get("name"): t.get("template") for t in objects}
    source = named.get("default", source)
  if not isinstance(source, str | None):
    raise ValueError(
      f"{path}: chat_template must be text, or a list of named ones with a "
      "`default`"
    )
  return source, str(path)


def _check_chatml(path: pathlib.Path, added: Mapping[str, bool]) -> None:
  """Raises ValueError where ChatML, which needs no template, has no tokens."""
  missing = {START, END} - set(added)
  if missing:
    raise ValueError(
      f"{path} has no {' and no '.join(sorted(missing))} among its added "
      "tokens, and no chat template lies beside it; put the checkpoint's "
      "tokenizer_config.json or chat_template.jinja there, or use a tokenizer "
      'with the ChatML tokens (Qwen\'s), or "bytes"'
    )


def _inner(spec: dict[str, Any], path: pathlib.Path) -> tokenizers.Tokenizer:
  """The library's tokenizer: nothing cut, padded or taken for a special.

  The library keeps text that spells a token plain only if the token is marked
  special, which some files leave out: the caller has set the marks.
  """
  try:
    inner = tokenizers.Tokenizer.from_str(json.dumps(spec))
  except Exception as error:  # the library knows no narrower kind
    raise ValueError(f"{path} is not a tokenizer.json: {error}") from error
  inner.no_padding()
  inner.no_truncation()
  inner.encode_special_tokens = True
  return inner


def _bos(inner: tokenizers.Tokenizer) -> int | None:
  """The token that the file's own post-processing puts in front, if any."""
  templated = inner.encode("0", add_special_tokens=True).ids
  plain = inner.encode("0", add_special_tokens=False).ids
  fits = bool(plain) and templated[1 : 1 + len(plain)] == plain
  return templated[0] if fits else None


def _pad(spec, path, inner, named, end) -> int:
  """The id that pads: the file's own, the config's, a usual one or `end`."""
  if padding := spec.get("padding"):
    own = padding.get("pad_id") if isinstance(padding, dict) else None
    if type(own) is not int or own < 0 or inner.id_to_token(own) is None:
      raise ValueError(
        f"{path}: its padding has no pad_id that is a token's: mend it, or set "
        "padding to null, so that pad_token of tokenizer_config.json pads"
      )
    return own
  tokens = [named.get("pad_token"), *PADS]
  ids = [inner.token_to_id(token) for token in tokens if token]
  return next((i for i in ids if i is not None), end)


def _stops(path, inner, end) -> tuple[int, ...]:
  """`end`, then what else generation_config.json stops at."""
  said = _json(path, {}).get("eos_token_id")
  ids = said if isinstance(said, list) else [] if said is None else [said]
  for i in ids:
    if type(i) is not int or i < 0 or inner.id_to_token(i) is None:
      raise ValueError(f"{path}: eos_token_id has {i!r}, no token's id")
  return tuple(dict.fromkeys([end, *ids]))


def _bytelevel(spec: dict[str, Any], path: pathlib.Path) -> bool:
  """Whether tokens are spelled in GPT-2's letters, or in SentencePiece's."""
  decoder = spec.get("decoder") or {"type": "ByteLevel"}
  kind = decoder if isinstance(decoder, dict) else {}
  if kind.get("type") == "ByteLevel":
    return True
  if kind.get("decoders") == SENTENCEPIECE:
    return False
  raise ValueError(
    f"{path}: its decoder is neither byte-level nor SentencePiece's with byte "
    "fallback, so the text of its tokens is not known"
  )


def _checked(tokenizer: FileTokenizer, bos: str | None) -> FileTokenizer:
  """Tries the template: the library's ids, and one BOS or none.

  A template that writes no BOS gets none, as in `apply_chat_template`.
  """
  if tokenizer.template is None:
    return tokenizer
  inner, chat = tokenizer.inner, templates.CHAT
  (text,) = tokenizer.template.texts([(chat, True)])
  ids = [i for piece, _ in tokenizer.lay_out(chat, True) for i in piece]
  inner.encode_special_tokens = False
  text = templates.without_blocks(text)
  whole = inner.encode(text, add_special_tokens=False).ids
  inner.encode_special_tokens = True
  if ids != whole:
    raise ValueError(
      f"{tokenizer.name}: text behind a special token is encoded otherwise "
      "than alone; tokenizers of this kind are not known"
    )
  first = inner.token_to_id(bos) if bos else None
  if first is not None and ids[:2] == [first] * 2:
    place = tokenizer.template.place
    raise ValueError(f"{place}: the chat template writes BOS twice")
  written = bool(ids) and ids[0] == first
  return dataclasses.replace(tokenizer, bos=first if written else None)


def write_bytes(
  folder: pathlib.Path, tokens: Mapping[int, str], *, end: int, pad: int
) -> None:
  """Writes a tokenizer of bytes, as transformers has one, into a folder.

  `tokens` are the letters of all 256 bytes and, behind them, the specials of
  BY_TURNS; `end` closes a turn and stops a sampler.
  """
  plain = {token: i for i, token in tokens.items() if i < 256}
  inner = tokenizers.Tokenizer(models.BPE(plain, []))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  inner.decoder = decoders.ByteLevel()
  inner.add_special_tokens([tokens[i] for i in range(256, len(tokens))])
  inner.save(str(folder / "tokenizer.json"))
  about = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": tokens[end],
    "pad_token": tokens[pad],
    "clean_up_tokenization_spaces": False,
    "chat_template": BY_TURNS,
  }
  stops = {"eos_token_id": end, "pad_token_id": pad}
  for name, said in (("tokenizer", about), ("generation", stops)):
    path = folder / f"{name}_config.json"
    path.write_text(json.dumps(said, indent=2) + "\n")
