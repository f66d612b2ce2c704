"""Drawing a token, and its log-probability under the law it was drawn from."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How to sample: temperature 0 is greedy; top-k 0 and top-p 1 keep all."""

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    """Raises ValueError on a law that is none."""
    if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise ValueError(
        f"{self}: temperature and top_k are >= 0, top_p is in (0, 1]"
      )

  @property
  def truncates(self) -> bool:
    """Says whether some tokens can never be drawn."""
    return self.top_k > 0 or self.top_p < 1 or self.temperature == 0


def log_law(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
  """Returns the log-probabilities that `draw` draws from, -inf where cut.

  Tempered first, then top-k, then top-p (the smallest set whose mass reaches
  p), renormalised over what is kept; of equal logits the lower ids stay.
  """
  if sampling.temperature == 0:
    best_B1 = logits_BV.argmax(-1, keepdims=True)
    return jnp.where(
      jnp.arange(logits_BV.shape[-1])[None] == best_B1, 0.0, -jnp.inf
    )
  logits_BV = logits_BV / sampling.temperature
  if sampling.top_k or sampling.top_p < 1:
    order_BV = jnp.argsort(-logits_BV, axis=-1, stable=True)
    rank_BV = jnp.argsort(order_BV, axis=-1)
    if sampling.top_k:
      logits_BV = jnp.where(rank_BV < sampling.top_k, logits_BV, -jnp.inf)
    if sampling.top_p < 1:
      p_BV = jax.nn.softmax(logits_BV)
      sorted_BV = jnp.take_along_axis(p_BV, order_BV, -1)
      before_BV = jnp.cumsum(sorted_BV, -1) - sorted_BV
      keep_BV = jnp.take_along_axis(before_BV < sampling.top_p, rank_BV, -1)
      logits_BV = jnp.where(keep_BV, logits_BV, -jnp.inf)
  return jax.nn.log_softmax(logits_BV)


def draw(
  keys_B: jax.Array, logits_BV: jax.Array, sampling: Sampling
) -> tuple[jax.Array, jax.Array]:
  """Returns (tokens_B, logprobs_B), each row drawn by its own key."""
  law_BV = log_law(logits_BV, sampling)
  tokens_B = jax.vmap(jax.random.categorical)(keys_B, law_BV)
  picked_B1 = jnp.take_along_axis(law_BV, tokens_B[:, None], -1)
  return tokens_B.astype(jnp.int32), picked_B1[:, 0]
