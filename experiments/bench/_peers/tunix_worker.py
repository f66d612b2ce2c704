"""One GRPO step of Tunix, run by .venv-tunix and never imported; see peers.py.

The learner is real, and so are its sampler, loss and optimizer; the queues and
threads between its rollouts and its updates are left out.
"""

# pyright: reportMissingImports=false

import json
from typing import Any

import jax
import jax.numpy as jnp
import optax
import terms
import transformers
from flax import nnx
from jax.interpreters import pxla
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen2 import params as checkpoints
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

Role = rl_cluster.Role


def model_of(folder: Any) -> qwen2.Qwen2:
  """Returns the checkpoint by Tunix's own loader."""
  told = json.loads((folder / "config.json").read_text())
  config = qwen2.ModelConfig(
    num_layers=told["num_hidden_layers"],
    vocab_size=told["vocab_size"],
    embed_dim=told["hidden_size"],
    hidden_dim=told["intermediate_size"],
    num_heads=told["num_attention_heads"],
    head_dim=told["hidden_size"] // told["num_attention_heads"],
    num_kv_heads=told["num_key_value_heads"],
    rope_theta=int(told["rope_theta"]),
    norm_eps=told["rms_norm_eps"],
    use_tied_embedding=told["tie_word_embeddings"],
  )
  return checkpoints.create_model_from_safe_tensors(
    str(folder), config, dtype=jnp.float32
  )


def learner_of(folder: Any) -> grpo_learner.GRPOLearner:
  """Returns a learner over the checkpoint, without a reference."""
  adam: Any = optax.adamw
  adam = adam(**terms.OPTIMIZER, weight_decay=0.0)
  mesh = pxla.thread_resources.env.physical_mesh
  cluster = rl_cluster.RLCluster(
    actor=model_of(folder),
    tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh=dict.fromkeys((Role.ACTOR, Role.ROLLOUT), mesh),
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.chain(
          optax.clip_by_global_norm(terms.NORM), adam
        ),
        eval_every_n_steps=10_000,
        max_steps=10_000,
      ),
      rollout_config=base_rollout.RolloutConfig(
        max_tokens_to_generate=terms.NEW,
        max_prompt_length=terms.PROMPT,
        kv_cache_size=terms.PROMPT + terms.NEW,
        temperature=1.0,
        top_p=1.0,
        eos_tokens=[-1],
      ),
    ),
  )
  return grpo_learner.GRPOLearner(
    rl_cluster=cluster,
    reward_fns=lambda completions, **_: [*map(terms.reward, completions)],
    algo_config=grpo_learner.GRPOConfig(
      num_generations=terms.GROUP,
      beta=0.0,
      epsilon=terms.CLIP,
      loss_agg_mode="token-mean",
    ),
  )


def given(drawn: dict) -> grpo_learner.TrainExample:
  """Returns a given rollout under the learner's names."""
  arrays = {name: jnp.asarray(x) for name, x in drawn.items()}
  return grpo_learner.TrainExample(
    prompt_ids=arrays["prompts"],
    prompt_mask=jnp.ones_like(arrays["prompts"], bool),
    completion_ids=arrays["answers"],
    completion_mask=arrays["mask"] > 0,
    ref_per_token_logps=None,
    advantages=arrays["advantages"],
    old_per_token_logps=arrays["old"],
  )


def main() -> None:
  """Answers until nobody asks any more."""
  folder, drawn = terms.arguments()
  learner = learner_of(folder)
  learner._rollout_micro_batch_size = terms.PROMPTS
  cluster, trainer = learner.rl_cluster, learner.rl_cluster.actor_trainer
  fixed = None if drawn is None else given(drawn)

  def step() -> float:
    example = fixed
    if example is None:
      asked = {"prompts": terms.asked()}
      example = learner._generate_and_compute_advantage(asked)
    cluster.update_actor([example], None)
    jax.block_until_ready(nnx.state(trainer.model))
    (loss,) = trainer._prev_buffered_train_metrics.losses
    return float(loss)

  terms.serve(step, "google-tunix", "jax")


if __name__ == "__main__":
  main()
