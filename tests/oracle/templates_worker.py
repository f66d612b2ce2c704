"""What transformers makes of conversations: run by .venv-torch, never imported.

    .venv-torch/bin/python tests/oracle/templates_worker.py make FOLDER
    .venv-torch/bin/python tests/oracle/templates_worker.py ask FOLDER

`make` writes a small tokenizer of each family into FOLDER, with a chat template
written in our own words after the structure of the published one: none is a
copy, and what they lay out is the same. Both then write beside each, in
said.json, what `apply_chat_template` says of every conversation, [text, ids,
mask], and of its prompt: what comes before a last answer, ready to be answered.
The masks are those of the same template with `{% generation %}` blocks in it.
"""

import json
import pathlib
import re
import sys

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

DATE = "26 Jul 2024"
TEXT = (
  "the sum of two numbers is what we want to know so let us think about it "
  "first and then answer: 12 + 30 = 42, because the tens are four and the "
  "ones are two. user assistant system model helpful question answer "
) * 3
QWEN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
  r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")


def say(*said):
  """A conversation: s, u and a say in turn what follows the colon."""
  roles = {"s": "system", "u": "user", "a": "assistant"}
  return [{"role": roles[x[0]], "content": x[2:]} for x in said]


THOUGHT = "a:<think>\nTwo and two.\n</think>\n\nIt is 4."
CONVERSATIONS = {
  "question": say("u:What is 2 + 2?"),
  "answered": say("u:What is 2 + 2?", "a:It is 4."),
  "system": say("s:Be brief.", "u:12 + 30?"),
  "system_answered": say("s:Be brief.", "u:12 + 30?", "a:42"),
  "two_turns": say("u:One", "a:1", "u:Two", "a:2"),
  "open_turn": say("s:Count.", "u:One", "a:1", "u:Two"),
  "three_turns": say("u:One", "a:1", "u:Two", "a:2", "u:Three", "a:3"),
  "empty_question": say("u:", "a:What do you want to know?"),
  "empty_answer": say("u:Say nothing.", "a:"),
  "empty_system": say("s:", "u:Hello", "a:Hello"),
  "unicode": say(
    "u:na\u00efve \u6f22\u5b57 \U0001f9d1\u200d\U0001f680?",
    "a:\u00e9\u0301 \u20ac \U0001f600",
  ),
  "spaced_question": say("u:\n\n  twice\t \n", "a:once"),
  "spaced_answer": say("u:Indent it.", "a:  x = 1\n\n    y = 2  \n\n"),
  "code": say("s:{{ system }}", "u:{% if a %}\r\n\t{{ b }}{# c #}", "a:`{}`"),
  "thought": say("u:What is 2 + 2?", THOUGHT),
  "thought_before": say("u:What is 2 + 2?", THOUGHT, "u:And 3 + 3?"),
  "thought_twice": say("u:What is 2 + 2?", THOUGHT, "u:Again?", THOUGHT),
  "thought_once": say("u:What is 2 + 2?", THOUGHT, "u:Again?", "a:4"),
  "spelled": say("u:What does <think> mean, or </think>?", "a:A mark."),
  "unfinished": say("u:What is 2 + 2?", "a:<think>\nTwo and"),
}

BLOCK = "{% generation %}", "{% endgeneration %}"
MINE = lambda words: f"{BLOCK[0]}{{{{ {words} }}}}{BLOCK[1]}"
CHATML = "{{ '<|im_start|>' ~ m.role ~ '\n' }}"
ASSISTANT = "{% if m.role == 'assistant' %}"
OTHERWISE = "{% else %}"
END = "{% endif %}"
QWEN2 = "".join(
  [
    "{% if messages[0].role != 'system' %}",
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    + "You are a helpful assistant.<|im_end|>\n' }}"
    + END,
    "{% for m in messages %}" + CHATML + ASSISTANT,
    MINE("m.content ~ '<|im_end|>'") + OTHERWISE,
    "{{ m.content ~ '<|im_end|>' }}" + END + "{{ '\n' }}{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" + END,
  ]
)
QWEN3 = "".join(
  [
    "{% set asked = namespace(at=messages|length - 1) %}",
    "{% for m in messages %}",
    "{% if m.role == 'user' %}{% set asked.at = loop.index0 %}" + END,
    "{% endfor %}{% for m in messages %}" + CHATML + ASSISTANT,
    "{% set thought = m.content.split('</think>') %}",
    "{% set words = thought[-1].lstrip('\n') %}",
    "{% set thinks = thought|length > 1 %}",
    "{% set why = thought[0].rstrip('\n').split('<think>')[-1].strip('\n') %}",
    "{% if loop.index0 > asked.at and (loop.last or (thinks and why)) %}",
    "{% if thinks %}",
    MINE("'<think>\n' ~ why ~ '\n</think>\n\n' ~ words ~ '<|im_end|>'"),
    "{% else %}{{ '<think>\n\n</think>\n\n' }}",
    MINE("words ~ '<|im_end|>'") + END,
    "{% elif thinks %}{{ words ~ '<|im_end|>' }}{% else %}",
    MINE("m.content ~ '<|im_end|>'") + END + OTHERWISE,
    "{{ m.content ~ '<|im_end|>' }}" + END + "{{ '\n' }}{% endfor %}",
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}" + END,
  ]
)
HEADER = "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' }}"
LLAMA3 = "".join(
  [
    "{{ bos_token ~ '<|start_header_id|>system<|end_header_id|>\n\n' }}",
    "{% if date_string is not defined %}",
    "{% set date_string = strftime_now('%d %b %Y') %}" + END,
    "{{ 'Cutting Knowledge Date: December 2023\nToday Date: ' ~ date_string }}",
    "{{ '\n\n' }}{% if messages[0].role == 'system' %}",
    "{{ messages[0].content|trim }}{% set messages = messages[1:] %}" + END,
    "{{ '<|eot_id|>' }}{% for m in messages %}" + HEADER + ASSISTANT,
    MINE("(m.content|trim) ~ '<|eot_id|>'") + OTHERWISE,
    "{{ (m.content|trim) ~ '<|eot_id|>' }}" + END + "{% endfor %}",
    "{% if add_generation_prompt %}{% set m = {'role': 'assistant'} %}",
    HEADER + END,
  ]
)
GEMMA3 = "".join(
  [
    "{{ bos_token }}{% set led = namespace(by='') %}",
    "{% if messages[0].role == 'system' %}",
    "{% set led.by = messages[0].content ~ '\n\n' %}",
    "{% set messages = messages[1:] %}" + END + "{% for m in messages %}",
    "{% if (m.role == 'user') == (loop.index0 is odd) %}",
    "{{ raise_exception('user and assistant take turns') }}" + END,
    "{{ '<start_of_turn>' }}" + ASSISTANT + "{{ 'model\n' }}",
    MINE("(m.content|trim) ~ '<end_of_turn>'") + OTHERWISE,
    "{{ m.role ~ '\n' ~ led.by ~ (m.content|trim) ~ '<end_of_turn>' }}" + END,
    "{% set led.by = '' %}{{ '\n' }}{% endfor %}",
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}" + END,
  ]
)
OVER = "<\uff5cend\u2581of\u2581sentence\uff5c>"
USER, MODEL = "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"
R1 = "".join(
  [
    "{% set first = namespace(words='') %}{% for m in messages %}",
    "{% if m.role == 'system' %}{% set first.words = m.content %}" + END,
    "{% endfor %}{{ bos_token ~ first.words }}{% for m in messages %}",
    "{% if m.role == 'user' %}{{ '" + USER + "' ~ m.content }}",
    "{% elif m.role == 'assistant' %}{{ '" + MODEL + "' }}",
    "{% if '</think>' in m.content %}",
    "{{ m.content.split('</think>')[-1] ~ '" + OVER + "' }}" + OTHERWISE,
    MINE("m.content ~ '" + OVER + "'") + END + END + "{% endfor %}",
    "{% if add_generation_prompt %}{{ '" + MODEL + "<think>\n' }}" + END,
  ]
)

BEGIN = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
CHATML_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HEADERS = [
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eom_id|>",
  "<|eot_id|>",
]
THINK = ["<think>", "</think>"]
# By family: template, its special tokens, those not marked so, the names that
# tokenizer_config.json gives, and where the sampler is to stop.
FAMILIES = {
  "qwen2": (
    QWEN2,
    CHATML_MARKS,
    ["<tool_call>", "</tool_call>"],
    {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    ["<|im_end|>", "<|endoftext|>"],
  ),
  "qwen3": (
    QWEN3,
    CHATML_MARKS,
    ["<tool_call>", "</tool_call>", *THINK],
    {"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    ["<|im_end|>", "<|endoftext|>"],
  ),
  "llama3": (
    LLAMA3,
    ["<|begin_of_text|>", "<|end_of_text|>", *HEADERS],
    [],
    {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>"},
    ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"],
  ),
  "gemma3": (
    GEMMA3,
    ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    ["\n\n"],
    {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"},
    ["<eos>", "<end_of_turn>"],
  ),
  "r1": (
    R1,
    [BEGIN, OVER],
    [USER, MODEL, *THINK],
    {"bos": BEGIN, "eos": OVER, "pad": OVER},
    [OVER],
  ),
}


def byte_level(pattern):
  """A byte-level BPE with a hundred merges."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  trainer = trainers.BpeTrainer(
    vocab_size=356, initial_alphabet=alphabet, show_progress=False
  )
  tokenizer.train_from_iterator([TEXT], trainer)
  return tokenizer


def sentence_piece(specials):
  """A BPE of SentencePiece's kind: spaces are U+2581, bytes the last resort."""
  space = normalizers.Replace(" ", "\u2581")
  draft = tokenizers.Tokenizer(models.BPE())
  draft.normalizer = space
  draft.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
  trainer = trainers.BpeTrainer(
    vocab_size=130, initial_alphabet=["\n", "<", ">"], show_progress=False
  )
  draft.train_from_iterator([TEXT], trainer)
  model = json.loads(draft.to_str())["model"]
  learned = sorted(model["vocab"], key=model["vocab"].get)
  tokens = [*specials, *(f"<0x{b:02X}>" for b in range(256)), *learned]
  merges = [tuple(m) for m in model["merges"]]
  bpe = models.BPE(
    {token: i for i, token in enumerate(tokens)},
    merges,
    unk_token="<unk>",
    fuse_unk=True,
    byte_fallback=True,
  )
  tokenizer = tokenizers.Tokenizer(bpe)
  tokenizer.normalizer = space
  tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  tokenizer.decoder = decoders.Sequence(
    [
      decoders.Replace("\u2581", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
    ]
  )
  return tokenizer


def plain(template):
  """The template without its generation blocks, as published ones are."""
  return template.replace(BLOCK[0], "").replace(BLOCK[1], "")


def trained(family):
  """A family's tokenizer, with its special tokens and the others it adds."""
  _, specials, more, names, _ = FAMILIES[family]
  if family == "gemma3":
    tokenizer = sentence_piece(specials)
  else:
    tokenizer = byte_level(LLAMA if family == "llama3" else QWEN)
  tokenizer.add_special_tokens(specials)
  others = [tokenizers.AddedToken(t, normalized=False) for t in more]
  tokenizer.add_tokens(others)
  bos = names.get("bos")
  if bos:  # as published: text alone gets a BOS, which a template writes itself
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
      single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
  return tokenizer


def write(folder, family):
  """A family's tokenizer, its config and its generation_config.json."""
  template, _, _, names, stops = FAMILIES[family]
  tokenizer = trained(family)
  many = [tokenizer.token_to_id(token) for token in stops]
  as_object = lambda token: {"__type": "AddedToken", "content": token}
  spelled = as_object if family == "r1" else str  # both are published
  config = {f"{name}_token": spelled(token) for name, token in names.items()}
  config |= {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "chat_template": plain(template),
  }
  files = {
    "tokenizer.json": tokenizer.to_str(),
    "generation_config.json": json.dumps(
      {"eos_token_id": many if len(many) > 1 else many[0]}
    ),
    "blocks.json": json.dumps(template),
  }
  if family == "llama3":  # newer folders keep the template in its own file
    files["chat_template.jinja"] = config.pop("chat_template")
  files["tokenizer_config.json"] = json.dumps(config)
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in files.items():
    (folder / name).write_text(text + "\n")


def ask(folder):
  """What `apply_chat_template` says: {conversation: {"whole", "prompt"}}."""
  tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
  blocks = json.loads((folder / "blocks.json").read_text())

  def rendered(messages, prompt):
    how = {"add_generation_prompt": prompt, "date_string": DATE}
    text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    ids = tokenizer.apply_chat_template(messages, **how)
    marked = tokenizer.apply_chat_template(
      messages,
      chat_template=blocks,
      return_dict=True,
      return_assistant_tokens_mask=True,
      **how,
    )
    if marked["input_ids"] != ids:
      raise ValueError(f"{folder}: the blocks change the ids")
    mask = "".join(map(str, marked["assistant_masks"]))
    return [text, ids, mask or "0" * len(ids)]

  return {
    name: {
      "whole": rendered(messages, False),
      "prompt": rendered(
        messages[:-1] if messages[-1]["role"] == "assistant" else messages,
        True,
      ),
    }
    for name, messages in CONVERSATIONS.items()
  }


def main():
  """Does what the command line says."""
  what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  if what == "make":
    for family in FAMILIES:
      write(folder / family, family)
    (folder / "conversations.json").write_text(
      json.dumps(CONVERSATIONS, indent=1) + "\n"
    )
  for tokenizer in sorted(path.parent for path in folder.glob("*/blocks.json")):
    said = json.dumps(ask(tokenizer))
    said = re.sub(r", (?=\d)", ",", said) + "\n"
    (tokenizer / "said.json").write_text(said)


if __name__ == "__main__":
  main()
