"""Episodes: a model and an environment, turn by turn, until a verdict.

An environment is a module with

    problems(split, seed, **args) -> iterator of Problem
    start(problem, seed) -> Turn;  step(state, text) -> Turn
    facts(state) -> dict;          trace(state, seed, said) -> str

Text goes in and out of it; here it becomes tokens, once. What the model sampled
is never tokenised again, and what the environment says is never learned.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from research.data import text
from research.sampling import engine, rollout
from research.types import Problem, Turn, Verdict

# Told of an episode that ran out of room or of turns: worth nothing.
CUT = Verdict("unparsed", 0.0)


@dataclasses.dataclass(frozen=True)
class Episode:
  """A conversation as tokens: what the model sampled has mask 1.

  `tokens`, `mask` and `logprobs` are alike long; `messages` say the same to
  people. `turn` is the environment's last; `truncated` says that the model was
  cut off, or the episode.
  """

  problem: Problem
  turn: Turn
  messages: tuple[dict[str, str], ...]
  tokens: np.ndarray
  mask: np.ndarray
  logprobs: np.ndarray
  truncated: bool = False

  @property
  def verdict(self) -> Verdict | None:
    """How it ended; None while it goes on."""
    return CUT if self.truncated else self.turn.verdict

  @property
  def sampled(self) -> int:
    """How many tokens the model wrote."""
    return int(self.mask.sum())


@dataclasses.dataclass(frozen=True)
class Limits:
  """The model's turns in an episode, a turn's tokens, and room for them all."""

  turns: int
  new_tokens: int
  room: int


def play(
  complete: Callable[..., list[engine.Completion]],
  tokenizer: text.Tokenizer,
  environment: Any,
  problems: Sequence[Problem],
  key: jax.Array,
  limits: Limits,
  seed: int = 0,
) -> list[Episode]:
  """Returns one episode a problem; problem i is played with `seed + i`.

  `complete` is what rollout.completer returns. An episode ends truncated where
  its turns are over, where its room has none for another, and where the model
  does not end its turn. What is drawn in turn t of episode i depends on
  (key, t, i) and not on the others.
  """
  episodes = [
    opened(tokenizer, environment, problem, seed + i)
    for i, problem in enumerate(problems)
  ]
  for turn in range(limits.turns):
    episodes = [_within(e, limits.room - limits.new_tokens) for e in episodes]
    going = [i for i, e in enumerate(episodes) if e.verdict is None]
    if not going:
      break
    asked = [episodes[i].tokens for i in going]
    said = complete(asked, jax.random.fold_in(key, turn), names=going)
    for i, completion in zip(going, said, strict=True):
      episodes[i] = answered(tokenizer, environment, episodes[i], completion)
  return [_within(e, -1) for e in episodes]  # its turns are over


def recite(environment: Any, problem: Problem, seed: int) -> Episode:
  """An episode whose player is the environment's own `trace`."""
  turn, said = environment.start(problem, seed), []
  messages = [{"role": "user", "content": turn.text}]
  while turn.verdict is None:
    wrote = environment.trace(turn.state, seed, tuple(said))
    turn = environment.step(turn.state, wrote)
    said.append(turn.text)
    messages += [
      {"role": "assistant", "content": wrote},
      {"role": "user", "content": turn.text},
    ]
  none = np.zeros(0)
  return Episode(problem, turn, tuple(messages[:-1]), none, none, none)


def opened(
  tokenizer: text.Tokenizer, environment: Any, problem: Problem, seed: int
) -> Episode:
  """An episode before the model's first turn."""
  turn = environment.start(problem, seed)
  asked = {"role": "user", "content": turn.text}
  ids = text.render(tokenizer, [asked], generate=True).ids
  zeros = np.zeros(len(ids), np.float32)
  return Episode(problem, turn, (asked,), ids, zeros, zeros)


def answered(
  tokenizer: text.Tokenizer,
  environment: Any,
  episode: Episode,
  completion: engine.Completion,
) -> Episode:
  """An episode after the model's turn, and the environment's."""
  m = len(completion.tokens)
  whole = m - (not completion.truncated)
  wrote = tokenizer.prefill + text.decode(tokenizer, completion.tokens[:whole])
  said = {"role": "assistant", "content": wrote}
  after = dataclasses.replace(
    episode,
    messages=(*episode.messages, said),
    truncated=completion.truncated,
    tokens=np.concatenate([episode.tokens, completion.tokens]),
    mask=np.concatenate([episode.mask, np.ones(m, np.float32)]),
    logprobs=np.concatenate([episode.logprobs, completion.logprobs]),
  )
  if completion.truncated:
    return after
  turn = environment.step(episode.turn.state, wrote)
  after = dataclasses.replace(after, turn=turn)
  if turn.verdict is not None:
    return after
  ids = text.between(tokenizer, turn.text)
  zeros = np.zeros(len(ids), np.float32)
  return dataclasses.replace(
    after,
    messages=(*after.messages, {"role": "user", "content": turn.text}),
    tokens=np.concatenate([after.tokens, ids]),
    mask=np.concatenate([after.mask, zeros]),
    logprobs=np.concatenate([after.logprobs, zeros]),
  )


def record(environment: Any, episode: Episode) -> dict[str, Any]:
  """Returns what a person would want to read of an episode, as rollouts say it.

  One whose grading failed has reward None.
  """
  verdict = episode.verdict
  assert verdict is not None, "an episode that goes on has no record"
  kind, value = rollout.value_of(verdict)
  wrote = [m["content"] for m in episode.messages if m["role"] == "assistant"]
  return {
    "key": episode.problem.meta["key"],
    "prompt": episode.messages[0]["content"],
    "completion": "\n".join(wrote),
    "messages": list(episode.messages),
    "reward": value,
    "verdict": kind,
    "tokens": episode.sampled,
    "truncated": episode.truncated,
    "facts": environment.facts(episode.turn.state),
  }


def _within(episode: Episode, room: int) -> Episode:
  """The episode, truncated where it has no room for another turn."""
  full = episode.verdict is None and len(episode.tokens) > room
  return dataclasses.replace(episode, truncated=True) if full else episode
