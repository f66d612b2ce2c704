"""What TRL says of losses: run by .venv-torch, never imported.

    .venv-torch/bin/python tests/oracle/trl_worker.py FILE.json

Writes GKD's divergence, and its gradient's norm by the student's logits, of two
fixed arrays of logits at several betas.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from trl.experimental.gkd import GKDTrainer

BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
SHAPE = (2, 5, 7)


def drawn(seed):
  """Fixed logits, fp64."""
  return torch.from_numpy(np.random.default_rng(seed).normal(size=SHAPE) * 2)


def said(beta):
  """The loss with three of ten tokens masked, and its gradient's norm."""
  student, teacher = drawn(0).requires_grad_(), drawn(1)
  labels = torch.ones(SHAPE[:2], dtype=torch.long)
  labels[0, 3:], labels[1, 0] = -100, -100
  loss = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta)
  loss.backward()
  return {"loss": loss.item(), "gradient": student.grad.norm().item()}


if __name__ == "__main__":
  found = {f"jsd_{beta}": said(beta) for beta in BETAS}
  text = json.dumps(found, indent=2, sort_keys=True) + "\n"
  pathlib.Path(sys.argv[1]).write_text(text)
