"""What a train step minimises: a model's forward joined to a loss."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from research import divergence, scoring, segments
from research.models import transformer
from research.models.config import Model
from research.training.step import Objective
from research.types import (
  Batch,
  Dense,
  Features,
  Pairs,
  Policy,
  Sampled,
  Spans,
  Trajectory,
  Written,
)


def speak(
  model: Model, params: Any, rows: Any, mesh: Mesh | None = None
) -> Dense:
  """Returns the next-token distributions of a model over packed rows.

  `rows` is a Batch or a Trajectory.
  """
  return _look(model, params, rows, mesh, ())[0]


def _look(
  model: Model,
  params: Any,
  rows: Any,
  mesh: Mesh | None,
  features: tuple[str, ...],
) -> tuple[Dense, dict[str, jax.Array]]:
  """Returns what a model says of packed rows, and features of its layers."""
  hidden_BTE, _, kept = transformer.apply(
    model,
    params,
    rows.tokens_BT,
    rows.positions_BT,
    rows.segments_BT,
    features=features,
    mesh=mesh,
  )
  unembed_VE = transformer.unembedding(model, params)
  return Dense(hidden_BTE, unembed_VE, model.logit_softcap), kept


def over(tokens: int | None, distribution: Dense) -> Dense:
  """Returns a distribution over the first `tokens` ids alone, or over all."""
  unembed_VE = distribution.unembed_VE[:tokens]
  return dataclasses.replace(distribution, unembed_VE=unembed_VE)


def listens_to(loss: Callable[..., Any]) -> Any:
  """Returns the type of signal that a loss declares, behind a partial too."""
  return typing.get_type_hints(getattr(loss, "func", loss))["signal"]


def imitation(
  model: Model, loss: Callable[..., Any], mesh: Mesh | None = None
) -> Objective:
  """Distillation on written tokens: inputs are a Batch of a teacher's text."""

  def objective(params, frozen, batch: Batch):
    del frozen
    student = speak(model, params, batch, mesh)
    signal = Sampled(segments.next_tokens(batch.tokens_BT))
    return loss(student, signal, batch.weights_BT)

  return objective


def resembling(
  model: Model,
  teacher: Model,
  loss: Callable[..., Any],
  mesh: Mesh | None = None,
) -> Objective:
  """Distillation from what a frozen teacher's layers hold of the same tokens.

  Features that the loss does not read are never kept: the compiler drops them.
  """

  def objective(params, frozen, batch: Batch):
    student, own = _look(model, params, batch, mesh, transformer.FEATURES)
    _, theirs = _look(teacher, frozen, batch, mesh, transformer.FEATURES)
    targets_BT = segments.next_tokens(batch.tokens_BT)
    theirs = jax.lax.stop_gradient(theirs)
    signal = Features(own, theirs, targets_BT, batch.segments_BT)
    return loss(student, signal, batch.weights_BT)

  return objective


def matching(
  model: Model,
  teacher: Model,
  loss: Callable[..., Any],
  mesh: Mesh | None = None,
  *,
  tokens: int | None = None,
  block: int = 512,
) -> Objective:
  """Distillation from a teacher's own distribution, frozen beside the student.

  Inputs are a Batch; who wrote it (teacher or student) is the caller's choice.
  Both speak over the first `tokens` ids, those that both tokenizers have:
  published sizes of one family pad the vocabulary differently. None means all.
  Other ids, which only a student writes that is not trained yet, weigh nothing.
  A loss that wants no more than what was written hears it `block` tokens at a
  time.

  Raises:
    ValueError: the vocabularies differ, and what they share is not said.
  """
  if tokens is None and model.vocab != teacher.vocab:
    raise ValueError(
      f"the student has {model.vocab} rows and the teacher {teacher.vocab}: "
      "say how many tokens they share (research.data.text.shared_rows)"
    )

  last = min(model.vocab, teacher.vocab, tokens or model.vocab) - 1

  def objective(params, frozen, batch: Batch):
    ids_BT = jnp.minimum(batch.tokens_BT, last)
    shared = dataclasses.replace(batch, tokens_BT=ids_BT)
    student = over(tokens, speak(model, params, batch, mesh))
    signal = over(tokens, speak(teacher, frozen, shared, mesh))
    signal = jax.lax.stop_gradient(signal)
    known_BT = segments.next_tokens(batch.tokens_BT) <= last
    heard = _heard(loss, signal, shared, block)
    return loss(student, heard, batch.weights_BT * known_BT)

  return objective


def _heard(
  loss: Callable[..., Any], said: Dense, batch: Batch, block: int
) -> Dense | Written | Sampled:
  """Returns what a loss wants to hear of a teacher's distribution."""
  targets_BT = segments.next_tokens(batch.tokens_BT)
  if listens_to(loss) is Written:
    return Written(said, targets_BT, batch.segments_BT)
  if listens_to(loss) is Sampled:
    logprobs_BT, _ = divergence.of_tokens(said, targets_BT, block=block)
    return Sampled(targets_BT, logprobs_BT)
  return said


def translating(
  model: Model,
  teacher: Model,
  loss: Callable[..., Any],
  mesh: Mesh | None = None,
) -> Objective:
  """Distillation from a frozen teacher that reads the text in its own tokens.

  Inputs are (Batch, Parallel). The loss hears the teacher's probability of each
  span, or its distribution where both sides begin one; elsewhere nothing is
  learned.
  """

  def objective(params, frozen, inputs):
    batch, beside = inputs
    student = speak(model, params, batch, mesh)
    said = jax.lax.stop_gradient(speak(teacher, frozen, beside.rows, mesh))
    if listens_to(loss) is Dense:
      at_BT1 = jnp.maximum(beside.at_BT, 0)[..., None]
      there_BTE = jnp.take_along_axis(said.hidden_BTE, at_BT1, axis=1)
      signal = dataclasses.replace(said, hidden_BTE=there_BTE)
      return loss(student, signal, batch.weights_BT * (beside.at_BT >= 0))
    targets_BS = segments.next_tokens(beside.rows.tokens_BT)
    logprobs_BS, _ = divergence.of_tokens(said, targets_BS)
    whole_BS = segments.each(logprobs_BS, beside.spans_BS)
    at_BT = jnp.maximum(beside.spans_BT - 1, 0)
    signal = Spans(
      segments.next_tokens(batch.tokens_BT),
      beside.spans_BT,
      jnp.take_along_axis(whole_BS, at_BT, axis=1),
    )
    return loss(student, signal, batch.weights_BT * (beside.spans_BT > 0))

  return objective


def by_domain(domains: Sequence[Objective]) -> Objective:
  """Several objectives, one a domain: inputs are (a domain's inputs, domain_B).

  `frozen` holds what each objective's own is; all rows of a step (of a
  microbatch) are of one domain, and no other objective is run. A metric that
  only others have is 0 of 0.
  """

  def objective(params, frozen, inputs):
    told, domain_B = inputs
    taught = lambda f, held: lambda params, told: f(params, held, told)
    branches = [taught(*pair) for pair in zip(domains, frozen, strict=True)]
    shapes = [jax.eval_shape(f, params, told)[2] for f in branches]
    absent = {
      name: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), pair)
      for shape in shapes
      for name, pair in shape.items()
    }

    def whole(f):
      def filled(params, told):
        total, denominator, metrics = f(params, told)
        return total, denominator, absent | metrics

      return filled

    same = [whole(f) for f in branches]
    return jax.lax.switch(domain_B[0], same, params, told)

  return objective


def recorded(
  model: Model, loss: Callable[..., Any], mesh: Mesh | None = None
) -> Objective:
  """Distillation from a teacher's candidates: inputs are (Batch, Sparse)."""

  def objective(params, frozen, inputs):
    del frozen
    batch, signal = inputs
    student = speak(model, params, batch, mesh)
    return loss(student, signal, batch.weights_BT)

  return objective


def score(
  model: Model,
  params: Any,
  rows: Any,
  *,
  temperature: float = 1.0,
  mesh: Mesh | None = None,
  block: int = 512,
  reference: tuple[Model, Any] | None = None,
) -> Policy:
  """Returns what a model says of the next tokens of packed rows.

  With a `reference`, a model and its parameters, `divergence_BT` is KL(model ||
  reference) of each token over the whole vocabulary.
  """
  said = speak(model, params, rows, mesh)
  policy = Policy(
    *divergence.of_tokens(
      said,
      segments.next_tokens(rows.tokens_BT),
      temperature=temperature,
      block=block,
    )
  )
  if reference is None:
    return policy
  other = jax.lax.stop_gradient(speak(*reference, rows, mesh))
  kl_BT = divergence.between(
    said, other, divergence.kl, temperature=temperature, block=block
  )
  return dataclasses.replace(policy, divergence_BT=kl_BT)


def policy_gradient(
  model: Model,
  loss: Callable[..., Any],
  *,
  temperature: float,
  mesh: Mesh | None = None,
  block: int = 512,
  reference: Model | None = None,
) -> Objective:
  """Reinforcement: inputs are (trajectory, advantage_BT).

  The policy is scored at the temperature that it was sampled at, `block` tokens
  at a time (see `kernels.map_tokens`). With a `reference`, whose parameters are
  `frozen`, it has a divergence_BT.
  """

  def objective(params, frozen, inputs):
    trajectory, advantage_BT = inputs
    policy = score(
      model,
      params,
      trajectory,
      temperature=temperature,
      mesh=mesh,
      block=block,
      reference=None if reference is None else (reference, frozen),
    )
    return loss(policy, trajectory, advantage_BT)

  return objective


def critic(
  model: Model, loss: Callable[..., Any], mesh: Mesh | None = None
) -> Objective:
  """What a policy's answers are worth: inputs are (trajectory, advantage_BT).

  The parameters are those of research.scoring.
  """

  def objective(params, frozen, inputs):
    del frozen
    values_BT = scoring.apply(model, params, inputs[0], mesh)
    return loss(values_BT, *inputs)

  return objective


def preference(
  model: Model,
  loss: Callable[..., Any],
  *,
  mesh: Mesh | None = None,
  block: int = 512,
) -> Objective:
  """Preferences between answers: inputs are Pairs."""

  def objective(params, frozen, pairs: Pairs):
    del frozen
    say = lambda rows: score(model, params, rows, mesh=mesh, block=block)
    return loss(say(pairs.chosen), say(pairs.rejected), pairs)

  return objective


def reward_model(
  model: Model, loss: Callable[..., Any], mesh: Mesh | None = None
) -> Objective:
  """A reward model's scores: inputs are a Trajectory, Steps, or Pairs.

  The loss hears one array of scores, or two of Pairs: see research.scoring.
  """

  def objective(params, frozen, inputs):
    del frozen
    paired = isinstance(inputs, Pairs)
    rows = (inputs.chosen, inputs.rejected) if paired else (inputs,)
    heard = [scoring.apply(model, params, each, mesh) for each in rows]
    return loss(*heard, inputs)

  return objective


def implicit_reward(
  model: Model,
  loss: Callable[..., Any],
  *,
  temperature: float = 1.0,
  mesh: Mesh | None = None,
  block: int = 512,
) -> Objective:
  """A language model that is itself a reward model: inputs are a Trajectory.

  It is read at the temperature at which its reference was.
  """

  def objective(params, frozen, trajectory: Trajectory):
    del frozen
    law = {"temperature": temperature, "mesh": mesh, "block": block}
    return loss(score(model, params, trajectory, **law), trajectory)

  return objective
