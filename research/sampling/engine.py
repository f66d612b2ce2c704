"""Sampling completions: prefill, then one token a row until all have stopped.

A row's randomness comes from its own key and its own token count, so what it
says does not depend on the rows beside it.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from research import sharding
from research.models import transformer
from research.models.config import Model
from research.sampling.sampler import Sampling, draw


@dataclasses.dataclass(frozen=True)
class Completion:
  """The tokens a model wrote, its stop token included, and their log-probs.

  `truncated` says that it ran out of room before it stopped.
  """

  tokens: np.ndarray
  logprobs: np.ndarray
  truncated: bool


def _next(model, params, unembed_VD, tokens_BT, positions_BT, last_B, cache):
  """Returns the logits behind each row's `last` token, and the cache."""
  hidden_BTD, cache, _ = transformer.apply(
    model, params, tokens_BT, positions_BT, None, cache
  )
  hidden_B1D = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)
  logits_BV = jnp.einsum(
    "BD,VD->BV",
    hidden_B1D[:, 0],
    unembed_VD,
    preferred_element_type=jnp.promote_types(jnp.float32, hidden_BTD.dtype),
  )
  if model.logit_softcap is not None:
    logits_BV = model.logit_softcap * jnp.tanh(logits_BV / model.logit_softcap)
  return logits_BV, cache


@functools.partial(
  jax.jit, static_argnames=("model", "sampling", "new_tokens", "stop")
)
def generate(
  model: Model,
  params: Any,
  prompts_BT: jax.Array,
  lengths_B: jax.Array,
  keys_B: jax.Array,
  *,
  sampling: Sampling,
  new_tokens: int,
  stop: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (tokens_BT, logprobs_BT, lengths_B) of up to `new_tokens` each.

  Prompts are padded on the right with any token; a row of length 0 is spare and
  stays silent. A length returned counts the stop token; what stands behind it
  is `stop` with log-probability 0.
  """
  B, T = prompts_BT.shape
  params = jax.tree.map(lambda p: p.astype(model.dtype), params)
  unembed_VD = transformer.unembedding(model, params)
  cache = transformer.empty_cache(model, B, T + new_tokens)
  positions_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  step = functools.partial(_next, model, params, unembed_VD)
  last_B = jnp.maximum(lengths_B - 1, 0)
  logits_BV, cache = step(prompts_BT, positions_BT, last_B, cache)
  zero_B = jnp.zeros_like(lengths_B)

  def body(carry):
    t, logits_BV, cache, done_B, tokens_BT, logprobs_BT, written_B = carry
    at_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, t)
    token_B, logprob_B = draw(at_B, logits_BV, sampling)
    token_B = jnp.where(done_B, stop, token_B)
    tokens_BT = tokens_BT.at[:, t].set(token_B)
    logprobs_BT = logprobs_BT.at[:, t].set(jnp.where(done_B, 0, logprob_B))
    written_B = written_B + ~done_B
    done_B = done_B | (token_B == stop)
    position_B1 = (lengths_B + t)[:, None]
    logits_BV, cache = step(token_B[:, None], position_B1, zero_B, cache)
    return t + 1, logits_BV, cache, done_B, tokens_BT, logprobs_BT, written_B

  def going(carry):
    t, done_B = carry[0], carry[3]
    return (t < new_tokens) & ~done_B.all()

  start = (
    jnp.zeros((), jnp.int32),
    logits_BV,
    cache,
    lengths_B == 0,
    jnp.full((B, new_tokens), stop, jnp.int32),
    jnp.zeros((B, new_tokens), logits_BV.dtype),
    zero_B,
  )
  *_, tokens_BT, logprobs_BT, written_B = jax.lax.while_loop(going, body, start)
  return tokens_BT, logprobs_BT, written_B


def _check(model: Model, prompts: Sequence[np.ndarray], new_tokens: int):
  for i, prompt in enumerate(prompts):
    if not len(prompt):
      raise ValueError(f"prompt {i} is empty")
    if len(prompt) + new_tokens > model.context:
      raise ValueError(
        f"prompt {i} has {len(prompt)} tokens and {new_tokens} new ones are "
        f"asked for, more than the context of {model.context}: shorten the "
        "prompt, lower new_tokens or raise model.context"
      )


def _pad(prompts: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, ...]:
  """Stacks prompts to [rows, T], T a multiple of 16; spare rows have length 0."""
  longest = max(len(p) for p in prompts)
  tokens_BT = np.zeros((rows, -(-longest // 16) * 16), np.int32)
  lengths_B = np.zeros(rows, np.int32)
  for i, prompt in enumerate(prompts):
    tokens_BT[i, : len(prompt)] = prompt
    lengths_B[i] = len(prompt)
  return tokens_BT, lengths_B


def complete(
  model: Model,
  params: Any,
  prompts: Sequence[np.ndarray],
  key: jax.Array,
  *,
  sampling: Sampling,
  new_tokens: int,
  stop: int,
  rows: int = 256,
  mesh: Mesh | None = None,
) -> list[Completion]:
  """Returns one completion a prompt, in order; prompt `i` draws by `key, i`.

  Prompts run in batches of `rows`, alike in length.

  Raises:
    ValueError: a prompt is empty or, with its new tokens, over the context.
  """
  _check(model, prompts, new_tokens)
  order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
  out: dict[int, Completion] = {}
  for start in range(0, len(order), rows):
    ids = order[start : start + rows]
    tokens_BT, lengths_B = _pad([prompts[i] for i in ids], rows)
    spare = [len(prompts)] * (rows - len(ids))
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      key, jnp.asarray(ids + spare, jnp.int32)
    )
    results = generate(
      model,
      params,
      *sharding.place((tokens_BT, lengths_B), mesh),
      keys_B,
      sampling=sampling,
      new_tokens=new_tokens,
      stop=stop,
    )
    tokens_BT, logprobs_BT, written_B = jax.device_get(results)
    for row, i in enumerate(ids):
      n = int(written_B[row])
      ids_T = tokens_BT[row, :n]
      out[i] = Completion(ids_T, logprobs_BT[row, :n], bool(ids_T[-1] != stop))
  return [out[i] for i in range(len(prompts))]
