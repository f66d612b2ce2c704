"""Optimizers and learning-rate schedules, by dataclass."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW (1711.05101) under a warm-up and a decay, both counted in steps.

  The rate rises linearly over `warmup` steps, then falls to `floor` times the
  peak at the run's last step. Norm scales and biases are not decayed. `clip`
  bounds the global gradient norm.
  """

  learning_rate: float
  warmup: int = 0
  schedule: Literal["constant", "cosine", "linear"] = "cosine"
  floor: float = 0.0
  weight_decay: float = 0.0
  b1: float = 0.9
  b2: float = 0.95
  eps: float = 1e-8
  clip: float = 1.0

  def __post_init__(self):
    """Raises ValueError on numbers that would train nothing or backwards."""
    positive = {"learning_rate": self.learning_rate, "clip": self.clip}
    for name, value in (positive | {"eps": self.eps}).items():
      if value <= 0:
        raise ValueError(f"optimizer: {name} is {value}; it must be above 0")
    for name in ("warmup", "weight_decay", "floor"):
      if getattr(self, name) < 0:
        raise ValueError(f"optimizer: {name} is below 0")


def schedule(cfg: Optimizer, steps: int) -> optax.Schedule:
  """Returns step -> learning rate over a run of so many steps.

  Raises:
    ValueError: the schedule's name is unknown.
  """
  peak, decay = cfg.learning_rate, max(steps - cfg.warmup, 1)
  match cfg.schedule:
    case "constant":
      after = optax.constant_schedule(peak)
    case "cosine":
      after = optax.cosine_decay_schedule(peak, decay, cfg.floor)
    case "linear":
      after = optax.linear_schedule(peak, peak * cfg.floor, decay)
    case other:
      raise ValueError(
        f'schedule {other!r} is none of "constant", "cosine", "linear"'
      )
  if not cfg.warmup:
    return after
  # (step + 1) / warmup: the first step already moves
  rise = lambda step: peak * (step + 1) / cfg.warmup
  return optax.join_schedules([rise, after], [cfg.warmup])


def _decays(params: Any) -> Any:
  """True where weight decay applies: on matrices, by the parameter's name."""

  def one(path, _):
    name = str(path[-1].key)
    return not (name.startswith("scale") or "bias" in name)

  return jax.tree_util.tree_map_with_path(one, params)


def make(
  cfg: Optimizer, steps: int, updates: int = 1
) -> optax.GradientTransformation:
  """Returns the transformation of a run of `steps`; the train step clips.

  Where a step has several `updates`, its rate is theirs.
  """
  rate = schedule(cfg, steps)
  return optax.adamw(
    lambda count: rate(jnp.floor_divide(count, updates)),
    b1=cfg.b1,
    b2=cfg.b2,
    eps=cfg.eps,
    weight_decay=cfg.weight_decay,
    mask=_decays,
  )
