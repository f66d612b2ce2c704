"""Conversations as transformers lays them out, and whose words are whose."""

import copy
import json
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from research.data import text

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "templates"
FAMILIES = ("qwen2", "qwen3", "llama3", "gemma3", "r1")
CHATS = json.loads((GOLDEN / "conversations.json").read_text())
SAY = lambda role, content: {"role": role, "content": content}
ASKED = SAY("user", "What is 2 + 2?")
# Where training goes on from the prompt, and `apply_chat_template` does not:
# R1's drops the reasoning of the last answer too, or counts the prefill as the
# assistant's.
CONTINUED = {"thought", "thought_twice", "unfinished"}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
  """Loads a family's tokenizer, with changed files where some are given."""

  def load(name, **files):
    if not files:
      return text.load_tokenizer(str(GOLDEN / name))
    folder = tmp_path_factory.mktemp(name)
    shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
    for file, written in files.items():
      path = folder / file.replace("_jinja", ".jinja").replace("_json", ".json")
      path.write_text(written)
    return text.load_tokenizer(str(folder))

  return load


def said(name):
  return json.loads((GOLDEN / name / "said.json").read_text())


def bits(mask):
  return "".join(map(str, mask.tolist()))


def mine(tokenizer, rendered):
  """The text of the assistant's tokens."""
  return text.decode(tokenizer, rendered.ids[rendered.mask == 1])


def test_twenty_conversations_of_five_families():
  assert len(CHATS) == 20 and len(FAMILIES) == 5
  assert (
    sum(said(name)[c]["whole"] is None for c in CHATS for name in FAMILIES) < 2
  )


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_masks_and_text_are_those_of_transformers(name, family):
  t, golden = family(name), said(name)
  for chat, messages in CHATS.items():
    asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    for kind, told in (("whole", messages), ("prompt", asked)):
      shown, ids, mask = golden[chat][kind]
      got = text.render(t, told, generate=kind == "prompt")
      if t.bos is not None:
        assert np.flatnonzero(got.ids == t.bos).tolist() == [0]
      if name == "r1" and kind == "whole" and chat in CONTINUED:
        continue  # see below
      assert got.ids.tolist() == ids, chat
      assert bits(got.mask) == mask, chat
      if chat != "unicode":  # the files' own normaliser composes characters
        assert text.decode(t, got.ids) == shown


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_in_a_template_say_what_prefixes_find(name, family):
  blocks = json.loads((GOLDEN / name / "blocks.json").read_text())
  t = family(name, chat_template_jinja=blocks)
  for chat in set(CHATS) - (CONTINUED if name == "r1" else set()):
    got = text.render(t, CHATS[chat])
    golden = said(name)[chat]["whole"]
    assert [got.ids.tolist(), bits(got.mask)] == golden[1:], chat


@pytest.mark.parametrize("name", ["qwen2", "llama3", "gemma3"])
def test_blocks_and_prefixes_agree_on_any_turns(name, family):
  blocks = json.loads((GOLDEN / name / "blocks.json").read_text())
  t, other = family(name), family(name, chat_template_jinja=blocks)
  odd = [
    "<think>",
    "</think>",
    "\n",
    " ",
    "\t",
    "model\n",
    "a",
    *t.template.marks,
  ]
  words = st.lists(st.sampled_from(odd), max_size=6).map("".join)
  turns = st.lists(st.tuples(words, words), min_size=1, max_size=3)

  @hypothesis.settings(max_examples=60, deadline=None)
  @hypothesis.given(turns, st.booleans())
  def check(turns, generate):
    roles = ("user", "assistant")
    pairs = [zip(roles, turn, strict=True) for turn in turns]
    chat = [SAY(*said) for pair in pairs for said in pair]
    got = text.render(t, chat, generate=generate)
    expected = text.render(other, chat, generate=generate)
    assert got.ids.tolist() == expected.ids.tolist()
    assert bits(got.mask) == bits(expected.mask)

  check()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_a_prefix_of_its_answer(name, family):
  t = family(name)
  thought = "<think>\nTwo and two.\n</think>\n\nIt is 4."
  for answer in (thought, "It is 4." if name != "r1" else thought, "\n\n 4"):
    if name == "r1" and "</think>" not in answer:
      continue  # its template opens an answer without reasoning otherwise
    prompt = text.render(t, [ASKED], generate=True)
    whole = text.render(t, [ASKED, SAY("assistant", answer)])
    n = len(prompt.ids)
    assert whole.ids[:n].tolist() == prompt.ids.tolist()
    assert not prompt.mask.any() and not whole.mask[:n].any()
    assert whole.ids[np.flatnonzero(whole.mask)[-1]] == t.end
    end = text.decode(t, [t.end])
    words = mine(t, whole).removesuffix(end).strip()
    assert (t.prefill + words).strip() == answer.strip()


def test_the_reasoning_of_a_last_answer_goes_on_from_the_prefill(family):
  """R1's template alone would train an answer that it never asks for."""
  t = family("r1")
  assert t.prefill == "<think>\n"
  prompt = text.render(t, [ASKED], generate=True).ids.tolist()
  rest = "Two and two.\n</think>\n\nIt is 4."
  for content in (
    f"<think>\n{rest}",
    f"<think>{rest}",
    f" <think>\n{rest}",
    rest,
  ):
    got = text.render(t, [ASKED, SAY("assistant", content)])
    assert got.ids.tolist() == [*prompt, *t.encode(rest), t.end]
    assert bits(got.mask) == "0" * len(prompt) + "1" * (len(t.encode(rest)) + 1)
  cut_off = text.render(t, [ASKED, SAY("assistant", "<think>\nTwo and")])
  assert cut_off.ids.tolist() == [*prompt, *t.encode("Two and"), t.end]
  assert mine(t, cut_off).startswith("Two")
  with pytest.raises(ValueError, match="<think> in its middle"):
    text.render(t, [ASKED, SAY("assistant", f"Well. <think>\n{rest}")])


@pytest.mark.parametrize("name", ["qwen3", "r1"])
def test_an_answer_shown_in_part_is_context(name, family):
  """Reasoning dropped from history: those words were never sampled so."""
  t, end = family(name), text.decode(family(name), [family(name).end])
  got = text.render(t, CHATS["thought_before"])
  assert not got.mask.any() and text.decode(t, got.ids).count("It is 4.") == 1
  got = text.render(t, CHATS["thought_once"])
  assert mine(t, got) == f"4{end}"
  got = text.render(t, CHATS["thought_twice"])
  assert mine(t, got).count("It is 4.") == 1
  assert text.decode(t, got.ids).count("It is 4.") == 2


def test_an_empty_thought_is_the_templates(family):
  t = family("qwen3")
  got = text.render(t, [ASKED, SAY("assistant", "4")])
  assert "<think>\n\n</think>\n\n4" in text.decode(t, got.ids)
  assert mine(t, got) == "4<|im_end|>"
  got = text.render(t, [ASKED, SAY("assistant", "\n\n  4")])
  assert "</think>\n\n  4" in text.decode(t, got.ids)
  assert mine(t, got) == "  4<|im_end|>"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_what_content_spells_is_never_a_mark(name, role, family):
  t = family(name)
  spelled = "a" + "b".join(t.template.marks) + "c" + "".join(t.template.marks)
  chat = [SAY("system", "s"), ASKED, SAY("assistant", "4")]
  innocent = text.render(t, chat)
  chat = [m if m["role"] != role else SAY(role, spelled) for m in chat]
  got = text.render(t, chat)
  marks = {t.inner.token_to_id(mark) for mark in t.template.marks}
  count = lambda rendered: sum(i in marks for i in rendered.ids.tolist())
  assert count(got) == count(innocent)
  assert spelled in text.decode(t, got.ids)
  raw = t.template.texts([(chat, False)])[0]
  t.inner.encode_special_tokens = False  # the trap is real
  whole = t.inner.encode(raw, add_special_tokens=False).ids
  assert sum(i in marks for i in whole) > count(innocent) + len(marks)


def test_marks_are_what_the_template_writes_whatever_the_file_says(family):
  """R1's leaves two unmarked; a thought is the assistant's, marked or not."""
  t = family("r1")
  user, assistant = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
  told = text.render(t, [SAY("user", user + assistant)]).ids.tolist()
  assert told.count(t.inner.token_to_id(user)) == 1
  assert t.inner.token_to_id(assistant) not in told
  spec = (GOLDEN / "qwen3" / "tokenizer.json").read_text()
  marked = spec.replace('"special":false', '"special":true')
  assert marked != spec
  t = family("qwen3", tokenizer_json=marked)
  assert len(t.encode("<think></think>")) == 2 < len(t.encode("<tool_call>"))


def test_a_copy_is_as_careful(family):
  t = family("qwen2")
  twin = copy.deepcopy(t)
  assert twin.encode("<|im_end|>") == t.encode("<|im_end|>") != [t.end]
  assert twin.fingerprint() == t.fingerprint()


REFUSED = {
  "rewrites": (
    "{% for m in messages %}{{ loop.revindex }}{{ m.content }}<|im_end|>"
    "{% endfor %}",
    "does not open the assistant's turn",
  ),
  "hides": (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% endfor %}",
    "does not open the assistant's turn",
  ),
  "endless": (
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}",
    "a sampler could not stop",
  ),
  "broken": ("{% if", "TemplateSyntaxError"),
  "curious": ("{{ ''.__class__.__mro__ }}", "SecurityError.*unsafe"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_templates_that_cannot_be_used(case, family):
  source, why = REFUSED[case]
  with pytest.raises(ValueError, match=rf"(?s)chat_template\.jinja: .*{why}"):
    family("qwen2", chat_template_jinja=source)


def test_bos_twice_is_refused(family):
  source = (GOLDEN / "llama3" / "chat_template.jinja").read_text()
  with pytest.raises(ValueError, match=r"jinja: .* writes BOS twice"):
    family("llama3", chat_template_jinja="{{ bos_token }}" + source)


def test_what_a_template_refuses_is_said(family):
  chat = [ASKED, SAY("user", "And 3 + 3?")]
  with pytest.raises(ValueError, match=r"tokenizer_config\.json: .*take turns"):
    text.render(family("gemma3"), chat)


def test_a_history_that_changes_behind_an_answer_is_refused(family):
  t = family("qwen3")
  answers = [SAY("assistant", "4"), SAY("assistant", "four")]
  with pytest.raises(ValueError, match="otherwise once the answer is there"):
    text.render(t, [ASKED, *answers])
  with pytest.raises(ValueError, match="cannot begin with the assistant"):
    text.render(t, answers)
  with pytest.raises(ValueError, match="U\\+FDD0"):
    text.render(t, [SAY("user", "a\ufdd2b")])
