"""What lies beside a tokenizer.json, and the bytes of its tokens."""

import json
import pathlib
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from research.data import hf_tokenizer, text

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "templates"
FAMILIES = ("qwen2", "llama3", "gemma3")


def load(name):
  return text.load_tokenizer(str(GOLDEN / name))


@pytest.fixture
def changed(tmp_path):
  """Loads a family with keys of one of its files changed; None removes it."""

  def load_changed(file, changes, name="qwen2"):
    shutil.copytree(GOLDEN / name, tmp_path, dirs_exist_ok=True)
    path = tmp_path / file
    if changes is None:
      path.unlink()
    elif isinstance(changes, str):
      path.write_text(changes)
    else:
      path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return text.load_tokenizer(str(tmp_path))

  return load_changed


@pytest.mark.parametrize(
  "name, stops, pad, bos",
  [
    ("qwen2", ["<|im_end|>", "<|endoftext|>"], "<|endoftext|>", None),
    (
      "llama3",
      ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
      "<|eot_id|>",
      "<|begin_of_text|>",
    ),
    ("gemma3", ["<end_of_turn>", "<eos>"], "<pad>", "<bos>"),
  ],
)
def test_stops_pad_and_bos_are_the_files(name, stops, pad, bos):
  t = load(name)
  assert list(t.stops) == [t.inner.token_to_id(token) for token in stops]
  assert t.end == t.stops[0]
  assert t.pad == t.inner.token_to_id(pad)
  assert t.bos == (t.inner.token_to_id(bos) if bos else None)


def test_a_stop_may_be_one_or_missing(changed):
  t = changed("generation_config.json", {"eos_token_id": 356})
  assert t.stops == (t.end, 356)
  assert changed("generation_config.json", None).stops == (t.end,)
  assert changed("generation_config.json", "{}").stops == (t.end,)


def test_a_special_that_nothing_writes_needs_no_row(changed):
  """The published tokenizer of Gemma 3 1B has one id more than it has rows."""
  t = load("gemma3")
  spec = json.loads((GOLDEN / "gemma3" / "tokenizer.json").read_text())
  image = spec["added_tokens"][0] | {"content": "<image>", "id": t.size}
  added = [*spec["added_tokens"], image]
  grown = changed("tokenizer.json", {"added_tokens": added}, "gemma3")
  assert grown.inner.token_to_id("<image>") == t.size == grown.size
  assert max(grown.encode("<image>")) < t.size
  added[-1] = image | {"special": False}  # text may spell it
  grown = changed("tokenizer.json", {"added_tokens": added}, "gemma3")
  assert grown.size == t.size + 1


def test_a_template_among_several_and_in_its_own_file(changed):
  source = json.loads((GOLDEN / "qwen2/tokenizer_config.json").read_text())
  source = source["chat_template"]
  named = [
    {"name": "tools", "template": "{{ 1 }}"},
    {"name": "default", "template": source},
  ]
  t = changed("tokenizer_config.json", {"chat_template": named})
  assert t.template.source == source
  t = changed("chat_template.jinja", source + "{# newer #}")
  assert t.template.source.endswith("{# newer #}")
  assert t.fingerprint() != load("qwen2").fingerprint()


def test_without_a_template_chatml_stays(changed):
  t = changed("tokenizer_config.json", None)
  assert t.template is None and t.prefill == ""
  chat = [{"role": "user", "content": "a"}]
  ids = text.render(t, chat, generate=True).ids
  told = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
  assert text.decode(t, ids) == told
  assert t.fingerprint() != load("qwen2").fingerprint()


PADDING = {
  "strategy": "BatchLongest",
  "direction": "Right",
  "pad_to_multiple_of": None,
  "pad_type_id": 0,
  "pad_token": "<|endoftext|>",
}
BROKEN = {
  "tokenizer_config.json": [
    ("{", r"is not a tokenizer_config\.json"),
    ("[]", "it holds no object"),
    ({"chat_template": 3}, "chat_template must be text"),
    ({"chat_template": ["x"]}, "with a `default`"),
    ({"chat_template": [{"name": "x", "template": ""}]}, "with a `default`"),
    ({"eos_token": 7}, "eos_token is 7, which spells"),
    ({"eos_token": "<nowhere>"}, r"eos_token '<nowhere>' is not in"),
    ({"pad_token": {"lstrip": False}}, "pad_token is {'lstrip': False}"),
  ],
  "generation_config.json": [
    ("\xff{", r"is not a generation_config\.json"),
    ({"eos_token_id": "2"}, "eos_token_id has '2'"),
    ({"eos_token_id": [1, True]}, "eos_token_id has True"),
    ({"eos_token_id": -1}, "eos_token_id has -1"),
    ({"eos_token_id": 9999}, "eos_token_id has 9999"),
  ],
  "tokenizer.json": [
    ("nonsense", r"is not a tokenizer\.json"),
    ({"added_tokens": 3}, r"is not a tokenizer\.json"),
    ({"model": {"type": "BPE"}}, r"is not a tokenizer\.json"),
    ({"padding": {"pad_id": "x"}}, r"is not a tokenizer\.json"),
    ({"padding": PADDING | {"pad_id": 9999}}, "no pad_id that is a token's"),
    ({"decoder": {"decoders": []}}, r"is not a tokenizer\.json"),
    (
      {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
      "its decoder is neither",
    ),
  ],
}


@pytest.mark.parametrize(
  "file, changes, why",
  [(file, *case) for file, cases in BROKEN.items() for case in cases],
)
def test_a_broken_file_is_named(file, changes, why, changed):
  named = file.replace(".", r"\.")
  with pytest.raises(ValueError, match=rf"(?s){named}.*{why}|{why}.*{named}"):
    changed(file, changes)


def test_text_behind_a_token_must_be_encoded_as_alone(changed):
  space = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}
  spec = {"pre_tokenizer": space | {"split": False}}
  with pytest.raises(ValueError, match="encoded otherwise than alone"):
    changed("tokenizer.json", spec)


def streamed(tokenizer, ids):
  """The pieces that are shown, one an id, and the last."""
  pending, shown = b"", []
  for i in ids:
    piece, pending = text.show(tokenizer, [i], pending)
    assert len(pending) < 4  # the cost of an id does not grow
    shown.append(piece)
  return [*shown, text.show(tokenizer, [], pending, last=True)[0]]


@pytest.mark.parametrize("name", FAMILIES)
def test_decode_is_the_librarys(name):
  t = load(name)

  @settings(max_examples=100, deadline=None)
  @given(st.text())
  def check(content):
    ids = t.encode(content)
    told = t.inner.decode(ids, skip_special_tokens=False)
    assert text.decode(t, ids) == told == "".join(streamed(t, ids))

  check()
  for i in range(t.size):  # each token, whole text or not
    told = t.inner.decode([i], skip_special_tokens=False)
    assert text.decode(t, [i]) == told


@pytest.mark.parametrize("name", [*FAMILIES, "bytes"])
def test_a_stream_shows_whole_characters_and_all_of_them(name):
  t = text.ByteTokenizer() if name == "bytes" else load(name)
  ids = st.lists(st.integers(0, t.size + 3), max_size=40)

  @settings(max_examples=150, deadline=None)
  @given(ids)
  def check(ids):
    assert "".join(streamed(t, ids)) == text.decode(t, ids)

  check()
  said = "a\u20ac\U0001f9d1\u200d\U0001f680 \u6f22"
  shown = streamed(t, t.encode(said))
  assert "".join(shown) == said and "\ufffd" not in "".join(shown)
  assert "" in shown and len(shown) > len(said)  # some wait for the next
  split = [text.decode(t, [i]) for i in t.encode(said)]
  assert "\ufffd" in "".join(split)  # one by one would have shown halves


def test_the_tables_letters_are_the_librarys():
  alphabet = set(pre_tokenizers.ByteLevel.alphabet())
  assert set(hf_tokenizer._byte_of()) == alphabet
  assert sorted(hf_tokenizer._byte_of().values()) == list(range(256))


def test_rows_are_shared_by_one_vocabulary_only(changed):
  qwen = load("qwen2")
  again = changed("tokenizer_config.json", None)  # another template, no matter
  assert text.shared_rows(qwen, again) == qwen.size == 361
  assert text.shared_rows(text.ByteTokenizer(), text.ByteTokenizer()) == 261
  with pytest.raises(ValueError, match=r"id 361 is '<think>' to the teacher's"):
    text.shared_rows(load("qwen3"), qwen)
  with pytest.raises(ValueError, match=r"id 356 is '<\|endoftext\|>' to the"):
    text.shared_rows(qwen, load("r1"))
  spec = json.loads((GOLDEN / "qwen2" / "tokenizer.json").read_text())
  vocab = spec["model"]["vocab"]
  vocab["x"], vocab["y"] = vocab["y"], vocab["x"]
  swapped = changed("tokenizer.json", spec)
  assert swapped.size == qwen.size
  with pytest.raises(ValueError, match=r"id \d+ is 'x' to .* and 'y' to"):
    text.shared_rows(qwen, swapped)
