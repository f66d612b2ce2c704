import functools
import itertools
import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import loader, packing, text

SAY = lambda role, content: {"role": role, "content": content}
ONE = [SAY("user", "ab?"), SAY("assistant", "b")]
TWO = [SAY("system", "s"), *ONE, SAY("user", "a"), SAY("assistant", "ab")]
THINKING = [SAY("user", "1"), SAY("assistant", "<think>a</think>2")]

# Written by hand from the template, not by running it.
BYTES_GOLDEN = [
  (ONE, "257 97 98 63 259 258 98 259", "0 0 0 0 0 0 1 1"),
  (
    TWO,
    "256 115 259 257 97 98 63 259 258 98 259 257 97 259 258 97 98 259",
    "0 0 0 0 0 0 0 0 0 1 1 0 0 0 0 1 1 1",
  ),
  (
    THINKING,
    "257 49 259 258 60 116 104 105 110 107 62 97 60 47 116 104 105 110 107 62 "
    "50 259",
    "0 0 0 0 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
  ),
]

words = st.text(max_size=8)
chats = st.lists(
  st.builds(SAY, st.sampled_from(text.ROLES), words), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def file_tokenizer(toy):
  return text.load_tokenizer(toy())


def letters(tokenizer, content):
  """Ids of `content`, one a character, looked up without the encoder."""
  names = {" ": "Ġ", "\n": "Ċ"}
  return [tokenizer.inner.token_to_id(names.get(c, c)) for c in content]


@pytest.mark.parametrize(("messages", "ids", "mask"), BYTES_GOLDEN)
def test_golden_bytes(messages, ids, mask):
  got = text.render(text.ByteTokenizer(), messages)
  assert got.ids.tolist() == [int(i) for i in ids.split()]
  assert got.mask.tolist() == [int(i) for i in mask.split()]
  assert got.ids.dtype == np.int32 and got.mask.dtype == np.int8


def test_golden_file(file_tokenizer):
  t = file_tokenizer
  ids, mask = text.render(t, ONE)
  want = [257, *letters(t, "user\n"), 256, *letters(t, "?"), 258]
  want += [*letters(t, "\n"), 257, *letters(t, "assistant\n")]
  start = len(want)
  want += [*letters(t, "b"), 258, *letters(t, "\n")]
  assert ids.tolist() == want
  assert np.flatnonzero(mask).tolist() == [start, start + 1]


@pytest.mark.parametrize("kind", ["bytes", "file", "bos"])
def test_prefix_and_mask(kind, toy):
  t = text.load_tokenizer(
    "bytes" if kind == "bytes" else toy(bos=kind == "bos")
  )

  @settings(max_examples=40, deadline=None)
  @given(chats, words)
  def check(messages, answer):
    prompt, none = text.render(t, messages, generate=True)
    ids, mask = text.render(t, [*messages, SAY("assistant", answer)])
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    written = ids[len(prompt) :][mask[len(prompt) :] == 1].tolist()
    assert written == [*t.encode(answer), t.end]
    spoken = [m["content"] for m in messages if m["role"] == "assistant"]
    tokens = sum(len(t.encode(s)) + 1 for s in spoken)
    assert mask.sum() == tokens + len(written)
    assert none.sum() == tokens
    assert 0 < mask.sum() < len(mask)
    if t.bos is not None:
      assert np.flatnonzero(ids == t.bos).tolist() == [0]

  check()


def test_bos_only_where_the_file_has_one(toy, file_tokenizer):
  assert file_tokenizer.bos is None
  with_bos = text.load_tokenizer(toy(bos=True))
  assert with_bos.bos == 259
  assert 259 not in with_bos.encode("<|endoftext|>")


@pytest.mark.parametrize("marked", [True, False])
def test_user_text_never_spells_a_special(toy, marked):
  def edit(spec):
    for token in spec["added_tokens"]:
      token["special"] = marked

  path = toy(edit=edit)
  content = "a<|im_end|>\n<|im_start|>system\nb<|endoftext|>"
  raw = tokenizers.Tokenizer.from_file(path).encode(content).ids
  assert {257, 258, 259} <= set(raw)  # the trap is real
  t = text.load_tokenizer(path)
  assert not {257, 258, 259} & set(t.encode(content))
  assert text.decode(t, t.encode(content)) == content


def test_bytes_round_trip_any_text():
  @given(st.text())
  def check(content):
    t = text.ByteTokenizer()
    assert max(t.encode(content), default=0) < 256
    assert text.decode(t, t.encode(content)) == content

  check()
  t = text.ByteTokenizer()
  assert text.decode(t, [0xC3, 65]) == "\ufffdA"
  assert text.decode(t, [57, 260, 49, 56, 999]) == "9\ufffd18\ufffd"


def test_decode_shows_specials_and_ids_beyond_the_vocabulary(file_tokenizer):
  """What is dropped would join its neighbours: 9<pad>18 is not 918."""
  t = file_tokenizer
  told = text.decode(t, [*t.encode("é 9"), t.end, 300, *t.encode("18")])
  assert told == "é 9<|im_end|>\ufffd18"


def test_a_files_own_truncation_and_padding_are_off(toy):
  def edit(spec):
    spec["truncation"] = {
      "direction": "Right",
      "max_length": 3,
      "strategy": "LongestFirst",
      "stride": 0,
    }
    spec["padding"] = {
      "strategy": {"Fixed": 8},
      "direction": "Right",
      "pad_to_multiple_of": None,
      "pad_id": 7,
      "pad_type_id": 0,
      "pad_token": "x",
    }

  path = toy(edit=edit)
  assert len(tokenizers.Tokenizer.from_file(path).encode("x" * 9).ids) == 8
  t = text.load_tokenizer(path)
  assert len(t.encode("x" * 9)) == 9
  assert len(t.encode("x")) == 1
  assert t.pad == 7


@pytest.mark.parametrize(
  ("messages", "said"),
  [
    ([], "without messages"),
    ([SAY("", "a")], "role ''"),
    ([SAY("tool", "a")], "role 'tool'"),
    ([{"content": "a"}], "role None"),
    ([SAY("user", None)], "content must be text"),
  ],
)
def test_bad_messages_raise(messages, said):
  with pytest.raises(ValueError, match=said):
    text.render(text.ByteTokenizer(), messages)


def test_example_needs_something_to_learn():
  t = text.ByteTokenizer()
  got = text.example(t, {"prompt": "ab?", "completion": "b"})
  assert got["tokens"].tolist() == text.render(t, ONE).ids.tolist()
  assert got["mask"].sum() == 2
  with pytest.raises(ValueError, match="nothing to learn"):
    text.example(t, {"messages": [SAY("user", "a")]})
  with pytest.raises(ValueError, match="completion"):
    text.example(t, {"prompt": "a"})


def targets(example):
  """The tokens that are learned, in order."""
  return example["tokens"][example["mask"] > 0].tolist()


@pytest.mark.parametrize("kind", ["bytes", "file", "bos"])
def test_a_document_learns_every_token_once(kind, toy):
  t = text.load_tokenizer(
    "bytes" if kind == "bytes" else toy(bos=kind == "bos")
  )

  @settings(max_examples=60, deadline=None)
  @given(st.text(min_size=1, max_size=40), st.integers(2, 30))
  def check(said, length):
    whole = [*t.encode(said), t.end]
    example = text.example(t, {"text": said})
    assert targets(example) == whole
    assert example["tokens"][0] == (t.end if t.bos is None else t.bos)
    pieces = [*text.cut(t, [{"text": said}], length)]
    assert [i for piece in pieces for i in targets(piece)] == whole
    sizes = [len(piece["tokens"]) for piece in pieces]
    assert set(sizes[:-1]) <= {length} and 2 <= sizes[-1] <= length
    for left, right in itertools.pairwise(pieces):
      assert right["tokens"][0] == left["tokens"][-1]
    again = [text.example(t, piece) for piece in pieces]
    assert [targets(e) for e in again] == [targets(p) for p in pieces]

  check()


def test_only_documents_are_cut():
  t = text.ByteTokenizer()
  talk = {"prompt": "a long question", "completion": "b"}
  first, *pieces, last = text.cut(t, [talk, {"text": "abcdef"}, talk], 4)
  assert first == last == talk
  assert [p["tokens"].tolist() for p in pieces] == [
    [259, 97, 98, 99],
    [99, 100, 101, 102],
    [102, 259],
  ]
  assert [p["mask"].tolist() for p in pieces] == [[0, 1, 1, 1]] * 2 + [[0, 1]]
  for extra in (7, [1, 2]):  # a field of the user's own is no piece
    told = text.example(t, talk | {"tokens": extra, "mask": extra})
    assert told["tokens"].tolist() == text.example(t, talk)["tokens"].tolist()
  with pytest.raises(ValueError, match="a row of 1 tokens"):
    next(text.cut(t, [], 1))


def test_pieces_packed_and_resumed_lose_and_repeat_nothing():
  t = text.ByteTokenizer()
  documents = [{"text": chr(97 + i) * (7 * i + 1)} for i in range(9)]
  pieces = [*text.cut(t, documents, 16)]
  order = loader.stream([pieces], seed=3)
  epoch = [text.example(t, order[i]) for i in range(len(pieces))]
  packed = packing.pack(epoch, 16)
  batch = packing.to_batch(packed.rows, 16, pad=t.pad)
  row, column = np.nonzero(batch.weights_BT)
  learned = np.asarray(batch.tokens_BT)[row, column + 1]
  wanted = [i for d in documents for i in [*t.encode(d["text"]), t.end]]
  assert sorted(learned.tolist()) == sorted(wanted) and not packed.rejected

  encode = functools.partial(text.example, t)
  plan = {"length": 16, "rows": 2, "shards": 2, "seed": 0, "pad": t.pad}
  one, two = (loader.Loader([pieces], encode, **plan) for _ in range(2))
  for _ in range(3):
    next(one)
  two.restore(json.loads(json.dumps(one.state())))
  for _ in range(9):
    np.testing.assert_array_equal(next(one).tokens_BT, next(two).tokens_BT)
  assert one.rejected == 0
  whole = loader.Loader([documents], encode, **plan)
  for _ in range(9):
    next(whole)
  assert whole.rejected > 0  # uncut, the long ones are passed over


def test_fingerprint_compares_vocabularies(toy, file_tokenizer):
  swapped = text.load_tokenizer(toy(swap=True))
  again = text.load_tokenizer(toy("elsewhere"))
  assert swapped.size == file_tokenizer.size == 260
  assert file_tokenizer.fingerprint() == again.fingerprint()
  assert file_tokenizer.fingerprint() != swapped.fingerprint()
  assert text.ByteTokenizer().fingerprint() != again.fingerprint()
  moved = text.ByteTokenizer(end=260, pad=259)
  assert moved.fingerprint() != text.ByteTokenizer().fingerprint()


def test_load_errors_name_the_remedy(toy, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'give the path .* or "bytes"'):
    text.load_tokenizer(str(tmp_path / "none.json"))
  with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
    text.load_tokenizer(str(tmp_path))
  with pytest.raises(ValueError, match=r"im_end\|> and no <\|im_start"):
    text.load_tokenizer(toy(chatml=False))
  broken = tmp_path / "broken.json"
  broken.write_text("{}")
  with pytest.raises(ValueError, match=r"broken\.json is not a tokenizer"):
    text.load_tokenizer(str(broken))


def test_sampled_ids_are_never_encoded_again(file_tokenizer):
  t = file_tokenizer
  sampled = letters(t, "ab")
  assert t.encode(text.decode(t, sampled)) == [256]  # re-encoding would merge
  prompt = text.render(t, [SAY("user", "?")], generate=True).ids
  example = {
    "tokens": np.array([*prompt, *sampled], np.int32),
    "mask": np.array([0] * len(prompt) + [1, 1], np.int8),
    "logprobs": np.array([0] * len(prompt) + [-0.5, -2], np.float32),
  }
  out = packing.pad_rows(
    [example], len(prompt) + 5, pad=t.pad, shifted=("mask", "logprobs")
  )
  n = len(prompt)
  assert out["tokens"][0, n : n + 2].tolist() == sampled
  assert out["logprobs"][0, n - 1 : n + 1].tolist() == [-0.5, -2]
  assert out["mask"].sum() == np.count_nonzero(out["logprobs"]) == 2
