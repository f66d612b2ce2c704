"""A decoder that orders passages as a rationale would have found them.

KARD (Kang et al. 2023, 2305.18395), section 3.3: with r the rationale of a
question x, over the candidates d of the question

    Q(d|r) = softmax_d bm25(r, d) / tau1,   P(d|x) = softmax_d f(x, d) / tau2,

and L = KL(Q || P). The rationale is read while learning alone. f is the
log-odds of the answers "yes" and "no" behind question and passage (Nogueira et
al. 2020, 2003.06713), so the decoder gets no new parameters.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from research import sharding
from research.data import packing, text
from research.models.config import Model
from research.training import objectives
from research.training.step import Objective
from research.types import Dense


@struct.dataclass
class Rows:
  """A question a row, and each of its candidates a segment of it.

  Candidate c's last token stands at `ends_BC[c]`, behind which it is judged;
  `target_BC` is its BM25 by the rationale, -inf where the row has no candidate.
  """

  tokens_BT: jax.Array
  positions_BT: jax.Array
  segments_BT: jax.Array
  ends_BC: jax.Array
  target_BC: jax.Array


def answers(tokenizer: text.Tokenizer) -> tuple[int, int]:
  """Returns the first tokens of "no" and "yes"; ValueError where they agree."""
  no, yes = (tokenizer.encode(word)[0] for word in ("no", "yes"))
  if no == yes:
    raise ValueError(
      f"the tokenizer {tokenizer.name!r} begins yes and no with one token, "
      f"{no}: a reranker cannot tell them apart"
    )
  return no, yes


def examples(
  tokenizer: text.Tokenizer, question: str, passages: Sequence[str]
) -> packing.Row:
  """Returns a conversation a passage, up to where the answer would begin."""
  asked = [{"role": "user", "content": f"{question}\n{p}"} for p in passages]
  return [
    {"tokens": text.render(tokenizer, [message], generate=True).ids}
    for message in asked
  ]


def lay_out(
  questions: Sequence[packing.Row],
  targets: Sequence[Sequence[float]],
  *,
  length: int,
  candidates: int,
  pad: int,
) -> Rows:
  """Returns rows of numpy arrays from `examples` and their candidates' BM25.

  Raises ValueError where a row is longer than `length`.
  """
  out = packing.lay_out(questions, length, pad=pad, shifted=())
  shape = (len(questions), candidates)
  ends_BC, target_BC = np.zeros(shape, np.int32), np.full(shape, -np.inf)
  for b, (row, target) in enumerate(zip(questions, targets, strict=True)):
    sizes = [packing.size_of(example) for example in row]
    ends_BC[b, : len(row)] = np.cumsum(sizes) - 1
    target_BC[b, : len(row)] = target
  found: dict[str, Any] = {
    f"{name}_BT": out[name] for name in ("tokens", "positions", "segments")
  }
  return Rows(
    **found,
    ends_BC=ends_BC,  # pyright: ignore[reportArgumentType]
    target_BC=target_BC.astype(np.float32),  # pyright: ignore
  )


def log_odds(
  spoken: Dense, ends_BC: jax.Array, answers: tuple[int, int]
) -> jax.Array:
  """Returns f_BC = log p(yes) - log p(no) behind each candidate.

  Two rows of the unembedding are all that is read of it.
  """
  hidden_BCE = jnp.take_along_axis(spoken.hidden_BTE, ends_BC[..., None], 1)
  wide = jnp.promote_types(jnp.float32, hidden_BCE.dtype)

  def logit(token: int) -> jax.Array:
    row_E = spoken.unembed_VE[token]
    logit_BC = jnp.einsum(
      "BCE,E->BC", hidden_BCE, row_E, preferred_element_type=wide
    )
    cap = spoken.softcap
    return logit_BC if cap is None else cap * jnp.tanh(logit_BC / cap)

  no, yes = answers
  return logit(yes) - logit(no)


def loss(
  f_BC: jax.Array, target_BC: jax.Array, *, tau1: float, tau2: float
) -> tuple[jax.Array, jax.Array, dict]:
  """Returns (sum, denominator, metrics): KL(Q || P) in nats over questions.

  `top` is how often both have the same candidate first. Every row has one at
  least.
  """
  there_BC = jnp.isfinite(target_BC)
  logq_BC = jax.nn.log_softmax(target_BC / tau1)
  logp_BC = jax.nn.log_softmax(jnp.where(there_BC, f_BC, -jnp.inf) / tau2)
  gap_BC = jnp.where(there_BC, logq_BC, 0) - jnp.where(there_BC, logp_BC, 0)
  rows = jnp.asarray(f_BC.shape[0], f_BC.dtype)
  top = (logq_BC.argmax(1) == logp_BC.argmax(1)).astype(f_BC.dtype).sum()
  return (jnp.exp(logq_BC) * gap_BC).sum(), rows, {"top": (top, rows)}


def imitation(
  model: Model,
  answers: tuple[int, int],
  mesh: Mesh | None = None,
  *,
  tau1: float,
  tau2: float,
) -> Objective:
  """The reranker's training: inputs are Rows."""

  def objective(params, frozen, rows: Rows):
    del frozen
    spoken = objectives.speak(model, params, rows, mesh)
    f_BC = log_odds(spoken, rows.ends_BC, answers)
    return loss(f_BC, rows.target_BC, tau1=tau1, tau2=tau2)

  return objective


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _judged(model, answers, mesh, params, rows: Rows) -> jax.Array:
  spoken = objectives.speak(model, params, rows, mesh)
  return log_odds(spoken, rows.ends_BC, answers)


def judge(
  model: Model,
  params: Any,
  tokenizer: text.Tokenizer,
  asked: Sequence[tuple[str, Sequence[str]]],
  *,
  rows: int = 16,
  mesh: Mesh | None = None,
) -> list[np.ndarray]:
  """Returns f of every passage of each (question, passages), in their order."""
  laid = [examples(tokenizer, *one) for one in asked]
  most = max(map(len, laid))
  longest = max(sum(map(packing.size_of, row)) for row in laid)
  found: list[np.ndarray] = []
  for start in range(0, len(laid), rows):
    taken = laid[start : start + rows]
    filled = taken + laid[:1] * (rows - len(taken))  # one shape is compiled
    placed = lay_out(
      filled,
      [[0.0] * len(row) for row in filled],
      length=-(-longest // 64) * 64,
      candidates=most,
      pad=tokenizer.pad,
    )
    if mesh is not None:
      placed = sharding.place(placed, mesh)
    f_BC = np.asarray(_judged(model, answers(tokenizer), mesh, params, placed))
    found += [f_BC[b, : len(row)] for b, row in enumerate(taken)]
  return found
