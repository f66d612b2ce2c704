"""Temporary bytes of losses over a vocabulary, in blocks and dense, on v5p.

Prints JSON; `tests.compile.process` says how its environment must be.
"""

import json
import sys

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import kernels

B, T, D, V = 8, 4096, 1536, 151_936


def reverse_kl(student_QV, teacher_QV):
  """KL(student, teacher) of each token."""
  log_student_QV = jax.nn.log_softmax(student_QV)
  log_teacher_QV = jax.nn.log_softmax(teacher_QV)
  gap_QV = log_student_QV - log_teacher_QV
  return (jnp.exp(log_student_QV) * gap_QV).sum(-1)


def logits(hidden, unembed_VD):
  """fp32 logits of any tokens."""
  return jnp.einsum(
    "...D,VD->...V", hidden, unembed_VD, preferred_element_type=jnp.float32
  )


def blocked_logprobs(hidden_BTD, unembed_VD, targets_BT):
  """The sum of what token_logprobs returns."""
  picked, entropy = kernels.token_logprobs(hidden_BTD, unembed_VD, targets_BT)
  return (picked + entropy).sum()


def dense_logprobs(hidden_BTD, unembed_VD, targets_BT):
  """The same over all logits at once."""
  logp = jax.nn.log_softmax(logits(hidden_BTD, unembed_VD))
  picked = jnp.take_along_axis(logp, targets_BT[..., None], -1)[..., 0]
  return (picked - (jnp.exp(logp) * logp).sum(-1)).sum()


def blocked_kl(hidden_BTD, unembed_VD, teacher_BTD):
  """The sum of reverse KL by map_tokens; the teacher has the same unembed."""
  f = lambda s_QV, t_QD: reverse_kl(s_QV, logits(t_QD, frozen_VD))
  frozen_VD = jax.lax.stop_gradient(unembed_VD)
  return kernels.map_tokens(f, hidden_BTD, unembed_VD, teacher_BTD).sum()


def dense_kl(hidden_BTD, unembed_VD, teacher_BTD):
  """The same over all logits at once."""
  teacher = logits(teacher_BTD, jax.lax.stop_gradient(unembed_VD))
  return reverse_kl(logits(hidden_BTD, unembed_VD), teacher).sum()


def temporary(f, other, rows, device):
  """Returns the bytes that f's gradients need beside operands and results."""
  where = SingleDeviceSharding(device)
  array = lambda *s, t=jnp.bfloat16: jax.ShapeDtypeStruct(s, t, sharding=where)
  last = array(rows, T, D) if other == "states" else array(rows, T, t=jnp.int32)
  traced = jax.jit(jax.grad(f, (0, 1))).trace(
    array(rows, T, D), array(V, D), last
  )
  compiled = traced.lower(lowering_platforms=("tpu",)).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Answers a line a loss: its temporaries "blocked" or "dense", as asked."""
  [kind] = sys.argv[1:]
  topology = topologies.get_topology_desc(
    platform="tpu", topology_name="v5p:2x2x1"
  )
  losses = {
    "logprobs": ("targets", blocked_logprobs, dense_logprobs),
    "reverse_kl": ("states", blocked_kl, dense_kl),
  }
  for name, (other, blocked, dense) in losses.items():
    f = blocked if kind == "blocked" else dense
    found = temporary(f, other, B, topology.devices[0])
    print(json.dumps({"name": name, "temp": found}), flush=True)


if __name__ == "__main__":
  main()
