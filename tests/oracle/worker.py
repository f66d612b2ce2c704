"""What transformers says of a checkpoint: run by .venv-torch, never imported.

    .venv-torch/bin/python tests/oracle/worker.py make FOLDER
    .venv-torch/bin/python tests/oracle/worker.py ask FOLDER

`make` writes tiny checkpoints of random weights into FOLDER, one a case. Both
then write beside each checkpoint, in said.npz, what transformers says of it:
logits of fixed tokens, the gradient of their mean cross-entropy with respect to
every tensor, and 64 greedy tokens behind the first row.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

GREEDY = 64
SMALL = {
  "vocab_size": 64,
  "hidden_size": 32,
  "intermediate_size": 48,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 128,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "pad_token_id": 0,
}
# Some frequencies lie within the ramp of either: a wrong blend would show.
YARN = {
  "rope_type": "yarn",
  "factor": 4.0,
  "original_max_position_embeddings": 64,
  "beta_fast": 8.0,
  "beta_slow": 1.0,
}
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "factor": 8.0}
GEMMA = {
  "head_dim": 16,
  "num_hidden_layers": 7,
  "sliding_window": 5,
  "query_pre_attn_scalar": 24,
}
CASES = {
  "qwen2_seven_to_one": (
    transformers.Qwen2Config,
    {"num_attention_heads": 7, "num_key_value_heads": 1, "hidden_size": 56},
  ),
  "qwen2_tied": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
  "qwen2_yarn": (
    transformers.Qwen2Config,
    {"rope_scaling": YARN, "num_attention_heads": 2, "hidden_size": 64},
  ),
  "qwen3_wide_heads": (transformers.Qwen3Config, {"head_dim": 24}),
  "qwen3_tied": (
    transformers.Qwen3Config,
    {"head_dim": 8, "tie_word_embeddings": True},
  ),
  "llama": (transformers.LlamaConfig, {"rms_norm_eps": 1e-5}),
  "llama3": (
    transformers.LlamaConfig,
    {"rope_theta": 10_000.0, "rope_scaling": LLAMA3, "head_dim": 24},
  ),
  "llama_linear": (transformers.LlamaConfig, {"rope_scaling": LINEAR}),
  "gemma3": (transformers.Gemma3TextConfig, GEMMA),
  "gemma3_linear": (
    transformers.Gemma3TextConfig,
    GEMMA | {"rope_scaling": LINEAR, "num_hidden_layers": 6},
  ),
}


def tokens():
  """Two rows of 24 fixed tokens."""
  return torch.from_numpy(np.random.default_rng(0).integers(3, 64, (2, 24)))


def load(folder):
  """The model of a checkpoint, in fp32."""
  return transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager"
  ).eval()


def ask(folder):
  """What `folder`'s model says: {name: array}."""
  model, ids = load(folder), tokens()
  logits = model(ids).logits
  loss = torch.nn.functional.cross_entropy(
    logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)
  )
  loss.backward()
  greedy = ids[:1]
  with torch.no_grad():
    for _ in range(GREEDY):
      following = model(greedy).logits[:, -1].argmax(-1, keepdim=True)
      greedy = torch.cat([greedy, following], 1)
  said = {
    "tokens": ids.numpy(),
    "logits": logits.detach().numpy(),
    "loss": loss.detach().numpy(),
    "greedy": greedy[0, ids.shape[1] :].numpy(),
  }
  gradients = {
    f"gradient/{name}": p.grad.numpy() for name, p in model.named_parameters()
  }
  return said | gradients


def make(folder):
  """Writes every case's checkpoint, its weights far from their defaults."""
  for seed, (name, (kind, changes)) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
      kind(**{**SMALL, **changes})
    )
    with torch.no_grad():
      for p in model.parameters():
        noise = torch.randn_like(p)
        p.add_(noise * (0.2 if p.ndim == 1 else 2 * p.shape[-1] ** -0.5))
      if model.config.model_type == "gemma3_text":
        # Else a token's own embedding, scaled, repeats it for ever.
        model.get_input_embeddings().weight.mul_(0.02)
    model.save_pretrained(folder / name)
    (folder / name / "generation_config.json").unlink()  # has nothing to say


def main():
  """Does what the command line says."""
  what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  if what == "make":
    make(folder)
  for checkpoint in sorted(p.parent for p in folder.glob("*/config.json")):
    np.savez_compressed(checkpoint / "said.npz", **ask(checkpoint))


if __name__ == "__main__":
  main()
