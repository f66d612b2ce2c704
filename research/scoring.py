"""A linear head on a decoder's last hidden states: critics, reward models.

A score at `t` is of the tokens up to and with `t`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from research.models import transformer
from research.models.config import Model


def init(model: Model, decoder: Any) -> dict[str, Any]:
  """Returns parameters whose scores are all 0, over a decoder's own."""
  return {
    "decoder": decoder,
    "head_D": jnp.zeros(model.width),
    "offset": jnp.zeros(()),
  }


def apply(
  model: Model, params: Any, rows: Any, mesh: Mesh | None = None
) -> jax.Array:
  """Returns scores_BT in fp32 or wider of packed rows (a Batch, Steps, ...)."""
  hidden_BTD, _, _ = transformer.apply(
    model,
    params["decoder"],
    rows.tokens_BT,
    rows.positions_BT,
    rows.segments_BT,
    mesh=mesh,
  )
  head_D = params["head_D"]
  wide = jnp.promote_types(jnp.float32, hidden_BTD.dtype)
  scores_BT = jnp.einsum(
    "BTD,D->BT", hidden_BTD.astype(wide), head_D.astype(wide)
  )
  return scores_BT + params["offset"]
