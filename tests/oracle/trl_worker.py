"""What TRL says of losses: run by .venv-torch, never imported.

    .venv-torch/bin/python tests/oracle/trl_worker.py FOLDER

Writes trl_distillation.json, GKD's divergence, and its gradient's norm by the
student's logits, of two fixed arrays of logits at several betas; and
trl_algorithms.json, losses of policy gradients and of preferences with their
gradients by the log-probabilities, of the fixed arrays of drawn.py.
"""

import collections
import json
import pathlib
import sys
import types
from unittest import mock

import drawn
import numpy as np
import torch
from trl.experimental.gkd import GKDTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.reward_trainer import RewardTrainer

BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
SHAPE = (2, 5, 7)


def logits(seed):
  """Fixed logits, fp64."""
  return torch.from_numpy(np.random.default_rng(seed).normal(size=SHAPE) * 2)


def said(beta):
  """The loss with three of ten tokens masked, and its gradient's norm."""
  student, teacher = logits(0).requires_grad_(), logits(1)
  labels = torch.ones(SHAPE[:2], dtype=torch.long)
  labels[0, 3:], labels[1, 0] = -100, -100
  loss = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta)
  loss.backward()
  return {"loss": loss.item(), "gradient": student.grad.norm().item()}


CLIP = {"epsilon_low": 0.2, "epsilon_high": 0.2}
CASES = {
  "grpo": {"loss_type": "grpo"} | CLIP,
  "grpo_k3": {"loss_type": "grpo", "beta": 0.04} | CLIP,
  "grpo_k3_weighted": {"loss_type": "grpo", "beta": 0.04, "weighted": True}
  | CLIP,
  "bnpo": {"loss_type": "bnpo"} | CLIP,
  "dr_grpo": {"loss_type": "dr_grpo", "max_completion_length": 16} | CLIP,
  "dapo": {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28},
  "dapo_capped": {
    "loss_type": "dapo",
    "epsilon_low": 0.2,
    "epsilon_high": 0.28,
    "cap": 1.1,
  },
  "cispo": {"loss_type": "cispo", "epsilon_low": 1.0, "epsilon_high": 1.28},
  "gspo": {
    "loss_type": "grpo",
    "importance_sampling_level": "sequence",
    "epsilon_low": 0.03,
    "epsilon_high": 0.04,
  },
}


def of_policy(weighted=False, cap=None, **settings):
  """GRPOTrainer's loss of the fixed rollout, and its gradient."""
  laws, mask, advantages = drawn.rollout()
  laws = {name: torch.from_numpy(x) for name, x in laws.items()}
  now = laws["now"].requires_grad_()
  trainer = policy_trainer(**settings, use_vllm=cap is not None)
  trainer.args.use_bias_correction_kl = weighted
  told = (now, torch.zeros_like(now), None)
  trainer._get_per_token_logps_and_entropies = lambda *_, **__: told
  ids = torch.zeros(mask.shape, dtype=torch.long)
  ratio = torch.exp(laws["old"] - laws["sampler"])
  inputs = {
    "prompt_ids": ids[:, :1],
    "prompt_mask": torch.ones_like(ids[:, :1]),
    "completion_ids": ids,
    "completion_mask": torch.from_numpy(mask),
    "advantages": torch.from_numpy(advantages),
    "old_per_token_logps": laws["old"],
    "ref_per_token_logps": laws["ref"],
    "importance_sampling_ratio": torch.clamp(ratio, max=cap or np.inf),
    "num_items_in_batch": torch.tensor(mask.sum()),
  }
  return slope(GRPOTrainer._compute_loss(trainer, None, inputs), now)


def policy_trainer(**settings):
  """What GRPOTrainer's loss asks of a trainer, all else switched off."""
  plain = {
    "beta": 0.0,
    "importance_sampling_level": "token",
    "max_completion_length": 6,
    "vllm_importance_sampling_correction": True,
    "aux_loss_enabled": False,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "_entropy_bonus_enabled": False,
  }
  trainer = mock.MagicMock(**plain | settings)
  trainer._metrics = collections.defaultdict(
    lambda: collections.defaultdict(list)
  )
  trainer.model.training = False
  trainer.args.delta = None
  trainer.accelerator.num_processes = 1
  trainer.accelerator.reduce = lambda x, reduction: x
  trainer.accelerator.gather = lambda x: x
  return trainer


def slope(loss, *arrays):
  """A loss and its gradients, as JSON has them."""
  loss.backward()
  return {"loss": loss.item(), "gradient": [x.grad.tolist() for x in arrays]}


def of_preference(beta):
  """DPOTrainer's loss of the fixed pairs, one token of prompt before each."""
  now, ref, mask = (torch.from_numpy(x) for x in drawn.pairs())
  now.requires_grad_()
  whole = torch.nn.functional.pad(mask, (1, 0)).long()

  def say(logp):
    zeros = torch.zeros_like(now)
    return lambda **_: types.SimpleNamespace(
      log_probs=logp * mask, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0
    )

  trainer = mock.MagicMock(
    beta=beta,
    ld_alpha=None,
    precompute_ref_logps=False,
    aux_loss_enabled=False,
    use_weighting=False,
    f_divergence_type="reverse_kl",
    loss_types=["sigmoid"],
    loss_weights=[1.0],
    ref_model=say(ref),
  )
  trainer.model.training = False
  trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = (
    lambda x: x
  )
  inputs = {"input_ids": torch.zeros_like(whole), "completion_mask": whole}
  found = DPOTrainer._compute_loss(trainer, say(now), inputs, False)
  return slope(found, now)


def of_scores():
  """RewardTrainer's loss of six fixed scores, chosen first."""
  scores = torch.from_numpy(drawn.pairs()[0][:, :1].copy()).requires_grad_()
  trainer = mock.MagicMock()
  trainer.model.training = False
  trainer.args.center_rewards_coefficient = None
  trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = (
    lambda x: x
  )
  model = lambda **_: types.SimpleNamespace(logits=scores)
  return slope(RewardTrainer.compute_loss(trainer, model, {}), scores)


def algorithms():
  """All that trl_algorithms.json holds."""
  found = {name: of_policy(**case) for name, case in CASES.items()}
  found |= {f"dpo_{beta}": of_preference(beta) for beta in (0.1, 0.5)}
  return found | {"reward": of_scores()}


def write(path, found):
  """One number a line is long: a case a line."""
  lines = [f'"{k}": {json.dumps(found[k])}' for k in sorted(found)]
  path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
  folder = pathlib.Path(sys.argv[1])
  text = {f"jsd_{beta}": said(beta) for beta in BETAS}
  text = json.dumps(text, indent=2, sort_keys=True) + "\n"
  (folder / "trl_distillation.json").write_text(text)
  write(folder / "trl_algorithms.json", algorithms())
