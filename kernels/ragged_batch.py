"""A ragged batch: whose token is whose, where it lies, what is done at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
  """What is to be attended: the arguments, brought to one form."""

  q_QKGH: jax.Array
  pages_PSKh: jax.Array
  page_table: jax.Array  # int32 [B, pages of a sequence]
  kv_lengths_B: jax.Array
  q_starts: jax.Array  # int32 [B + 1]
  window: jax.Array  # int32 []
  scale_K: jax.Array  # of scores: the softmax's times the keys'
  v_scale_K: jax.Array
  softcap: float | None


def owners(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns, for each token, its sequence, its position, and if it has one."""
  Q = batch.q_QKGH.shape[0]
  at_Q = jnp.arange(Q)
  owner_Q = jnp.searchsorted(batch.q_starts[1:], at_Q, side="right")
  owner_Q = jnp.minimum(owner_Q, batch.kv_lengths_B.shape[0] - 1)
  last_Q = batch.kv_lengths_B[owner_Q] - batch.q_starts[owner_Q + 1]
  position_Q = last_Q + at_Q
  most = batch.page_table.shape[1] * batch.pages_PSKh.shape[1]
  owned_Q = (at_Q >= batch.q_starts[0]) & (at_Q < batch.q_starts[-1])
  return owner_Q, position_Q, owned_Q & (position_Q >= 0) & (position_Q < most)


def places(batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns the page (P: nowhere) and the slot of each token, int32 [Q]."""
  owner_Q, position_Q, owned_Q = owners(batch)
  P, S = batch.pages_PSKh.shape[:2]
  column_Q = jnp.where(owned_Q, position_Q // S, 0)
  page_Q = jnp.where(owned_Q, batch.page_table[owner_Q, column_Q], P)
  return page_Q, jnp.where(owned_Q, position_Q % S, 0)


class Items(NamedTuple):
  """Up to `queries` tokens of one sequence each, in Q's order; int32 [n].

  Only the first `live` of them exist. An item's queries are the tokens
  [at, at + count), the first of which stands at `position`; they see keys of
  [first, position + count).
  """

  owner: jax.Array
  at: jax.Array
  count: jax.Array
  position: jax.Array
  first: jax.Array
  live: jax.Array


def cut(batch: Batch, queries: int) -> Items:
  """Returns the batch in items, as many as any division of Q could need."""
  Q, B = batch.q_QKGH.shape[0], batch.kv_lengths_B.shape[0]
  tokens_B = batch.q_starts[1:] - batch.q_starts[:-1]
  items_B = -(-tokens_B // queries)
  end_B = jnp.cumsum(items_B)
  n = jnp.arange(min(B + Q // queries, Q))
  owner = jnp.minimum(jnp.searchsorted(end_B, n, side="right"), B - 1)
  skipped = (n - end_B[owner] + items_B[owner]) * queries
  count = jnp.clip(tokens_B[owner] - skipped, 0, queries)
  position = batch.kv_lengths_B[owner] - tokens_B[owner] + skipped
  first = jnp.maximum(position - batch.window + 1, 0)
  at = batch.q_starts[owner] + skipped
  items = (owner, at, count, position, first, end_B[-1])
  return Items(*(x.astype(jnp.int32) for x in items))
