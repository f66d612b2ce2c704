"""What travels between the rooms: frozen pytrees without functions inside.

Alignment, stated once: every prediction field at `t` (`weights_BT`, `mask_BT`,
`logprobs_BT`, ...) speaks about token `t+1` of the same segment. Segments count
from 1 within a row; 0 is padding. Positions restart at 0 with each segment.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question with a checkable answer.

  `meta` holds JSON values only. Its `key` is the canonical form: two problems
  with one key are the same problem, and no two splits share a key. `begun` is
  what an answer begins with, already written in the assistant's name.
  """

  prompt: str
  answer: str
  meta: dict[str, Any]
  begun: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What grading found; `value` is None for an error, never a zero reward."""

  kind: Literal["correct", "wrong", "unparsed", "timeout", "error"]
  value: float | None


@dataclasses.dataclass(frozen=True)
class Turn:
  """An environment's turn: where it stands, and what it says of it.

  `verdict` is None while the episode goes on.
  """

  state: Any
  text: str
  verdict: Verdict | None = None


@dataclasses.dataclass(frozen=True)
class Trace:
  """What a teacher wrote on a problem; `text` is None where nothing came.

  `sample` counts the traces of one problem from 0. `finish` is why it ended:
  "stop", "length", or the "error" that `error` tells. `tokens` are the
  teacher's own, None where it counts none.
  """

  problem: Problem
  text: str | None
  sample: int
  finish: Literal["stop", "length", "error"]
  tokens: int | None = None
  error: str | None = None


@struct.dataclass
class Batch:
  """Packed rows of tokens; `weights_BT[t]` weighs predicting token `t+1`."""

  tokens_BT: jax.Array
  weights_BT: jax.Array
  positions_BT: jax.Array
  segments_BT: jax.Array


@struct.dataclass
class Dense:
  """A next-token distribution held as a hidden state and an unembedding."""

  hidden_BTE: jax.Array
  unembed_VE: jax.Array
  softcap: float | None = struct.field(pytree_node=False, default=None)

  def log_probs(
    self, hidden_QE: jax.Array, temperature: float = 1.0
  ) -> jax.Array:
    """Returns logprobs_QV of one block of tokens, fp32 or wider."""
    logits_QV = jnp.einsum(
      "QE,VE->QV",
      hidden_QE,
      self.unembed_VE,
      preferred_element_type=jnp.promote_types(jnp.float32, hidden_QE.dtype),
    )
    if self.softcap is not None:
      logits_QV = self.softcap * jnp.tanh(logits_QV / self.softcap)
    return jax.nn.log_softmax(logits_QV / temperature)


@struct.dataclass
class Sampled:
  """The tokens a teacher wrote and, where known, its log-probability of each.

  `targets_BT[t]` is token `t+1`.
  """

  targets_BT: jax.Array
  logprobs_BT: jax.Array | None = None


@struct.dataclass
class Sparse:
  """A teacher's C likeliest next tokens, and the log of all others' mass.

  `tail_BT` is -inf where the candidates are the whole vocabulary.
  """

  ids_BTC: jax.Array
  logprobs_BTC: jax.Array
  tail_BT: jax.Array


@struct.dataclass
class Written:
  """A teacher's distribution along what was written, and what that was.

  `targets_BT[t]` is token `t+1`; the segments are the packed rows' own.
  """

  teacher: Dense
  targets_BT: jax.Array
  segments_BT: jax.Array


@struct.dataclass
class Spans:
  """What a teacher of another tokenizer says of spans of bytes.

  `spans_BT` counts a row's spans from 1, at the student's predictions of their
  tokens; 0 is in none. `logprobs_BT` is the teacher's log-probability of the
  whole span, repeated on its tokens; `targets_BT[t]` is token `t+1`.
  """

  targets_BT: jax.Array
  spans_BT: jax.Array
  logprobs_BT: jax.Array


@struct.dataclass
class Parallel:
  """The texts of packed rows in a teacher's own tokens.

  `rows` has them row by row, segment by segment, in a length of its own. Spans
  are counted from 1 in a row, alike on both sides, at the predictions of their
  tokens: `spans_BT` at the student's, `spans_BS` at the teacher's; 0 is in
  none. `at_BT` is where in the teacher's row the text goes on as it does behind
  the student's `t`, where both begin a span, and -1 elsewhere.
  """

  rows: Batch
  spans_BS: jax.Array
  spans_BT: jax.Array
  at_BT: jax.Array


@struct.dataclass
class Features:
  """What all layers of a student and of a teacher hold of the same tokens.

  By name, see research.models.transformer.FEATURES: [N, B, T, ...] each, the
  teacher's own layers and widths. `targets_BT[t]` is token `t+1`.
  """

  student: dict[str, jax.Array]
  teacher: dict[str, jax.Array]
  targets_BT: jax.Array
  segments_BT: jax.Array


Signal = Dense | Sampled | Sparse | Written | Spans | Features


@struct.dataclass
class Trajectory:
  """What a policy sampled and what it earned, packed like a batch.

  A segment's own values (`rewards_BT`, `group_BT`, `truncated_BT`,
  `version_BT`) repeat on its tokens. `mask_BT` is 1 where token `t+1` was
  sampled by the policy itself. A segment whose grading failed carries mask 0.

  `logprobs_BT` is the sampler's, `old_logprobs_BT` the trainer's own of the
  same policy before its first update, `ref_logprobs_BT` a reference's.
  `values_BT` is a critic's of what stands up to `t`; `process_BT` is what token
  `t+1` earned by itself.
  """

  tokens_BT: jax.Array
  positions_BT: jax.Array
  segments_BT: jax.Array
  mask_BT: jax.Array
  logprobs_BT: jax.Array
  rewards_BT: jax.Array
  group_BT: jax.Array
  truncated_BT: jax.Array
  version_BT: jax.Array
  ref_logprobs_BT: jax.Array | None = None
  values_BT: jax.Array | None = None
  old_logprobs_BT: jax.Array | None = None
  process_BT: jax.Array | None = None


@struct.dataclass
class Policy:
  """What the current model says of a trajectory; None where not asked for."""

  logprobs_BT: jax.Array
  entropy_BT: jax.Array
  divergence_BT: jax.Array | None = None


@struct.dataclass
class Pairs:
  """Answers, and others that they are preferred to.

  Segment k of a row of `chosen` is preferred to segment k of the same row of
  `rejected`; both are [B, T]. Weights are 1 on the answers' tokens. `ref` are
  the reference's log-probabilities of them, `beta_BT` is a pair's own beta on
  the tokens of its chosen segment.
  """

  chosen: Batch
  rejected: Batch
  ref_chosen_BT: jax.Array | None = None
  ref_rejected_BT: jax.Array | None = None
  beta_BT: jax.Array | None = None


@struct.dataclass
class Steps:
  """Reasoning whose steps were judged.

  `ends_BT` is 1 on the last token of each judged step, `labels_BT` there how
  likely the step is right, in [0, 1]. Both speak of the tokens up to `t`.
  """

  tokens_BT: jax.Array
  positions_BT: jax.Array
  segments_BT: jax.Array
  labels_BT: jax.Array
  ends_BT: jax.Array


@struct.dataclass
class TrainState:
  """All device state of a run; what is not in here makes a resume inexact.

  `frozen` holds what is read and never updated (a LoRA's base, a reference
  policy), `extra` what is updated outside the optimizer (an average).
  """

  step: jax.Array
  params: Any
  opt_state: Any
  key: jax.Array
  frozen: Any = None
  extra: Any = None
