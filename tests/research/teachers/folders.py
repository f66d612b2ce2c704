"""Checkpoint folders of a small model that says anything at all."""

import dataclasses

import jax
from tokenizers import Tokenizer, models, pre_tokenizers

from research.models import huggingface, transformer
from research.models.config import Model

MODEL = Model(
  vocab=264,
  width=32,
  layers=1,
  kv_heads=2,
  groups=2,
  head_dim=8,
  mlp=48,
  context=96,
  qk_norm=True,
  tied=False,
)


def checkpoint(folder, **changes):
  """Writes weights and a byte-level tokenizer with ChatML's tokens."""
  model = dataclasses.replace(MODEL, **changes)
  params = transformer.init(model, jax.random.key(0))
  huggingface.save(folder, model, params)
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  inner = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  inner.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
  inner.save(str(folder / "tokenizer.json"))
  return folder
