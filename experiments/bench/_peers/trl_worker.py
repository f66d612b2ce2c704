"""One GRPO step of TRL, run by .venv-torch and never imported; see peers.py.

The trainer is real, and so are its loss, backward pass and optimizer; what its
loop does between steps (logging, callbacks, the data loader) is left out.
"""

# pyright: reportMissingImports=false

from typing import Any

import datasets
import terms
import torch
import transformers
from trl import GRPOConfig, GRPOTrainer

ANSWERS = terms.PROMPTS * terms.GROUP


def trainer_of(folder: Any) -> Any:
  """Returns a trainer of the checkpoint, without a reference and a logger."""
  cfg = terms.OPTIMIZER
  settings = GRPOConfig(
    output_dir=str(folder / "trl"),
    use_cpu=True,
    bf16=False,
    report_to="none",
    gradient_checkpointing=False,
    per_device_train_batch_size=ANSWERS,
    num_generations=terms.GROUP,
    max_completion_length=terms.NEW,
    generation_kwargs={"min_new_tokens": terms.NEW},
    beta=0.0,
    loss_type="dapo",
    epsilon=terms.CLIP,
    epsilon_high=terms.CLIP,
    learning_rate=cfg["learning_rate"],
    lr_scheduler_type="constant",
    weight_decay=0.0,
    adam_beta1=cfg["b1"],
    adam_beta2=cfg["b2"],
    adam_epsilon=cfg["eps"],
    max_grad_norm=terms.NORM,
  )
  prompts = [{"prompt": prompt} for prompt in terms.asked()]
  return GRPOTrainer(
    model=transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=torch.float32
    ),
    reward_funcs=lambda completions, **_: [*map(terms.reward, completions)],
    args=settings,
    train_dataset=datasets.Dataset.from_list(prompts),
    processing_class=transformers.AutoTokenizer.from_pretrained(folder),
  )


def given(drawn: dict) -> dict[str, torch.Tensor]:
  """Returns a given rollout under the trainer's names."""
  arrays = {name: torch.from_numpy(x) for name, x in drawn.items()}
  return {
    "prompt_ids": arrays["prompts"].long(),
    "prompt_mask": torch.ones_like(arrays["prompts"]).long(),
    "completion_ids": arrays["answers"].long(),
    "completion_mask": arrays["mask"].long(),
    "advantages": arrays["advantages"],
    "old_per_token_logps": arrays["old"],
    "num_items_in_batch": arrays["mask"].sum(),
  }


def main() -> None:
  """Answers until nobody asks any more."""
  torch.set_num_threads(2)
  folder, drawn = terms.arguments()
  trainer = trainer_of(folder)
  trainer.create_optimizer_and_scheduler(1000)
  model, optimizer = trainer.accelerator.prepare(
    trainer.model, trainer.optimizer
  )
  model.train()
  trainer.model_wrapped, trainer.current_gradient_accumulation_steps = model, 1
  asked = [{"prompt": prompt} for prompt in terms.asked()]
  if drawn is not None:
    rollout = given(drawn)
    trainer._prepare_inputs = lambda batch: rollout

  def step() -> float:
    loss = trainer.training_step(model, asked, None)
    trainer.accelerator.clip_grad_norm_(model.parameters(), terms.NORM)
    optimizer.step()
    model.zero_grad()
    return loss.item()

  terms.serve(step, "trl", "torch", "transformers")


if __name__ == "__main__":
  main()
