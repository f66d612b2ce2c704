import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
  """Writes a byte-level BPE file with the merge a+b; returns its path."""

  def write(name="toy", *, bos=False, chatml=True, swap=False, edit=None):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*alphabet, "ab"])}
    if swap:
      vocab["x"], vocab["y"] = vocab["y"], vocab["x"]
    tokenizer = Tokenizer(models.BPE(vocab, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer.add_special_tokens(marks if chatml else marks[2:])
    if bos:
      tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A",
        special_tokens=[("<|endoftext|>", 259)],
      )
    spec = json.loads(tokenizer.to_str())
    if edit:
      edit(spec)
    path = tmp_path_factory.mktemp(name) / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return str(path)

  return write
