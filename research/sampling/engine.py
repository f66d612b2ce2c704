"""Sampling completions: prefill, then one token a row until all have stopped.

A row's randomness comes from its own key and its own token count, so what it
says does not depend on the rows beside it.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

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
  """The tokens a model wrote, a stop token included, and their log-probs.

  `truncated` says that it ran out of room before it stopped.
  """

  tokens: np.ndarray
  logprobs: np.ndarray
  truncated: bool


class _Written(NamedTuple):
  """The carry of decoding: what each row wrote so far."""

  t: jax.Array
  logits_BV: jax.Array
  cache: Any
  done_B: jax.Array
  tokens_BT: jax.Array
  logprobs_BT: jax.Array
  lengths_B: jax.Array


def _next(model, params, tokens_BT, positions_BT, last_B, cache):
  """Returns the logits behind each row's `last` token, and the cache."""
  hidden_BTD, cache, _ = transformer.apply(
    model, params, tokens_BT, positions_BT, None, cache
  )
  hidden_B1D = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)
  logits_BV = jnp.einsum(
    "BD,VD->BV",
    hidden_B1D[:, 0],
    transformer.unembedding(model, params),
    preferred_element_type=jnp.promote_types(jnp.float32, hidden_BTD.dtype),
  )
  if model.logit_softcap is not None:
    logits_BV = model.logit_softcap * jnp.tanh(logits_BV / model.logit_softcap)
  return logits_BV, cache


def _write(now: _Written, keys_B: Any, sampling: Sampling, stops) -> Any:
  """Returns the tokens that each row draws next, and `now` with them in it."""
  at_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, now.t)
  token_B, logprob_B = draw(at_B, now.logits_BV, sampling)
  token_B = jnp.where(now.done_B, stops[0], token_B)
  logprob_B = jnp.where(now.done_B, 0, logprob_B)
  return token_B, now._replace(
    t=now.t + 1,
    done_B=now.done_B | jnp.isin(token_B, jnp.asarray(stops)),
    tokens_BT=now.tokens_BT.at[:, now.t].set(token_B),
    logprobs_BT=now.logprobs_BT.at[:, now.t].set(logprob_B),
    lengths_B=now.lengths_B + ~now.done_B,
  )


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
  stop: int | tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (tokens_BT, logprobs_BT, lengths_B) of up to `new_tokens` each.

  Prompts are padded on the right with any token; a row of length 0 is spare and
  stays silent. A row ends at `stop`, or at any of several. A length returned
  counts that token; what stands behind it is the first `stop` with
  log-probability 0.
  """
  params = transformer.in_compute_dtype(model, params)
  step = functools.partial(_next, model, params)
  stops = stop if isinstance(stop, tuple) else (stop,)
  now = _prefill(model, step, prompts_BT, lengths_B, new_tokens, stops[0])
  zero_B = jnp.zeros_like(lengths_B)

  def body(now):
    token_B, now = _write(now, keys_B, sampling, stops)
    position_B1 = (lengths_B + now.t - 1)[:, None]
    logits_BV, cache = step(token_B[:, None], position_B1, zero_B, now.cache)
    return now._replace(logits_BV=logits_BV, cache=cache)

  going = lambda now: (now.t < new_tokens) & ~now.done_B.all()
  now = jax.lax.while_loop(going, body, now)
  return now.tokens_BT, now.logprobs_BT, now.lengths_B


def _prefill(model, step, prompts_BT, lengths_B, new_tokens, stop) -> _Written:
  """Reads the prompts; nothing is written yet."""
  B, T = prompts_BT.shape
  cache = transformer.empty_cache(model, B, T + new_tokens)
  positions_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
  last_B = jnp.maximum(lengths_B - 1, 0)
  logits_BV, cache = step(prompts_BT, positions_BT, last_B, cache)
  return _Written(
    t=jnp.zeros((), jnp.int32),
    logits_BV=logits_BV,
    cache=cache,
    done_B=lengths_B == 0,
    tokens_BT=jnp.full((B, new_tokens), stop, jnp.int32),
    logprobs_BT=jnp.zeros((B, new_tokens), logits_BV.dtype),
    lengths_B=jnp.zeros_like(lengths_B),
  )


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
  """Stacks prompts to [rows, T], 16 | T; spare rows have length 0."""
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
  stop: int | tuple[int, ...],
  rows: int = 256,
  names: Sequence[int] | None = None,
  mesh: Mesh | None = None,
) -> list[Completion]:
  """Returns one completion a prompt, in order.

  Prompt `i` draws by `key` and `names[i]`, its place by default. Prompts run in
  batches of `rows`, alike in length.

  Raises:
    ValueError: a prompt is empty or, with its new tokens, over the context.
  """
  _check(model, prompts, new_tokens)
  run = functools.partial(
    generate, sampling=sampling, new_tokens=new_tokens, stop=stop
  )
  order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
  called_B = np.arange(len(prompts)) if names is None else np.asarray(names)
  out: dict[int, Completion] = {}
  for start in range(0, len(order), rows):
    ids = order[start : start + rows]
    padded = sharding.place(_pad([prompts[i] for i in ids], rows), mesh)
    keys_B = _keys(key, called_B[np.array(ids + [0] * (rows - len(ids)))])
    tokens_BT, logprobs_BT, lengths_B = jax.device_get(
      run(model, params, *padded, keys_B)
    )
    for row, i in enumerate(ids):
      ids_T = tokens_BT[row, : lengths_B[row]]
      logprobs_T = logprobs_BT[row, : lengths_B[row]]
      out[i] = Completion(ids_T, logprobs_T, not np.isin(ids_T[-1], stop))
  return [out[i] for i in range(len(prompts))]


_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
