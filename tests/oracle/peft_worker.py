"""What peft says of adapters: run by .venv-torch, never imported.

    .venv-torch/bin/python tests/oracle/peft_worker.py make FOLDER
    .venv-torch/bin/python tests/oracle/peft_worker.py ask FOLDER

FOLDER holds a folder a case, named as the checkpoint that it adapts, one of
tests/golden/huggingface. `make` writes adapters whose numbers are all random.
Both then write beside them, in said.npz, the logits of fixed tokens.
"""

import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import peft
import torch
import transformers

BASES = pathlib.Path(__file__).parents[1] / "golden" / "huggingface"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL += ["gate_proj", "up_proj", "down_proj"]
CASES = {
  "qwen2_seven_to_one": {"target_modules": ALL},
  "qwen3_wide_heads": {
    "target_modules": ["q_proj", "o_proj", "down_proj"],
    "use_rslora": True,
  },
  "gemma3": {"target_modules": ["v_proj", "up_proj"], "lora_dropout": 0.1},
}


def base(name):
  """The checkpoint that a case adapts, in fp32."""
  return transformers.AutoModelForCausalLM.from_pretrained(
    BASES / name, dtype=torch.float32, attn_implementation="eager"
  ).eval()


def make(folder):
  """Writes every case's adapters as peft saves them."""
  for seed, (name, changes) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    config = peft.LoraConfig(
      r=2, lora_alpha=6, task_type="CAUSAL_LM", **changes
    )
    model = peft.get_peft_model(base(name), config)
    config.base_model_name_or_path = name
    with torch.no_grad():
      for key, p in model.named_parameters():
        if "lora_" in key:
          p.normal_(std=0.3)
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink()
    with (folder / name / "adapter_config.json").open("a") as settings:
      settings.write("\n")


def ask(folder):
  """The logits of a case's adapters over its checkpoint."""
  model = peft.PeftModel.from_pretrained(base(folder.name), folder).eval()
  tokens = np.load(BASES / folder.name / "said.npz")["tokens"]
  with torch.no_grad():
    return model(torch.from_numpy(tokens)).logits.numpy()


def main():
  """Does what the command line says."""
  what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  if what == "make":
    make(folder)
  for case in sorted(p.parent for p in folder.glob("*/adapter_config.json")):
    np.savez_compressed(case / "said.npz", logits=ask(case))


if __name__ == "__main__":
  main()
