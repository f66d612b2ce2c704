"""A published checkpoint as a teacher, sampled on this machine's devices."""

import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from research import sharding, splits
from research.data import text
from research.models import huggingface
from research.sampling import engine
from research.sampling.sampler import Sampling
from research.teachers import answers
from research.teachers.answers import Answer, Messages
from research.types import Problem, Trace


def write(
  task: Any, problems: Iterable[Problem], n: int, seed: int, **how: Any
) -> Generator[Trace, None, dict[str, Any]]:
  """Yields `n` traces a problem, in order; `how` is that of `reply`."""
  del task
  ask_all = functools.partial(reply, seed=seed, **how)
  return answers.traces(problems, n, ask_all)


def reply(
  conversations: Iterable[Messages],
  seed: int,
  *,
  directory: str,
  new_tokens: int,
  rows: int = 64,
  temperature: float = 0.6,
  top_p: float = 0.95,
  top_k: int = 0,
  system: str | None = None,
  tokenizer: str | None = None,
  mesh: Mapping[str, Any] | None = None,
) -> answers.Replies:
  """Yields an answer a conversation, in order; returns the tokens in all.

  `directory` holds the weights (see huggingface.load), split as `mesh` says,
  and the tokenizer, unless `tokenizer` names one. `system` goes before every
  conversation. `rows` are answered at once, each with `new_tokens` at most; one
  that the template refuses, or that leaves no room in the context, gets an
  error. Raises ValueError for a tokenizer with more tokens than the model.
  """
  placed = None if mesh is None else sharding.make_mesh(**mesh)
  sampling = Sampling(temperature, top_k, top_p)
  words = text.load_tokenizer(tokenizer or directory)
  teacher = _load(directory, words, new_tokens, rows, sampling, placed)
  key = jax.random.key(splits.digest(f"checkpoint/{seed}") >> 32)
  read = written = 0
  batches = itertools.batched(answers.under(conversations, system), rows)
  for number, batch in enumerate(batches):
    for answer in teacher(batch, jax.random.fold_in(key, number)):
      read += answer.prompt_tokens
      written += answer.completion_tokens
      yield answer
  return {"prompt_tokens": read, "completion_tokens": written}


def _load(
  directory: str,
  tokenizer: text.Tokenizer,
  new_tokens: int,
  rows: int,
  sampling: Sampling,
  mesh: Any,
) -> Callable[[Iterable[Messages], jax.Array], Iterator[Answer]]:
  """A function that answers a batch of conversations by a key."""
  model, params = huggingface.load(directory, mesh=mesh)
  if tokenizer.size > model.vocab:
    raise ValueError(
      f"{directory} has {model.vocab} rows for the {tokenizer.size} tokens of "
      f"{tokenizer.name!r}: name its own tokenizer"
    )
  complete = functools.partial(
    engine.complete,
    model,
    params,
    sampling=sampling,
    new_tokens=new_tokens,
    stop=tokenizer.stops,
    rows=rows,
    mesh=mesh,
  )
  room = model.context - new_tokens

  def answer(batch: Iterable[Messages], key: jax.Array) -> Iterator[Answer]:
    prompts = [_prompt(tokenizer, messages, room) for messages in batch]
    said = complete([p for p in prompts if not isinstance(p, str)], key)
    return _answers(tokenizer, prompts, said)

  return answer


def _prompt(
  tokenizer: text.Tokenizer, messages: Messages, room: int
) -> np.ndarray | str:
  """The ids behind which to answer, or why there is no answer."""
  try:
    ids = text.render(tokenizer, messages, generate=True).ids
  except ValueError as error:
    return str(error)
  if len(ids) > room:
    return f"{len(ids)} tokens of prompt where the context has room for {room}"
  return ids


def _answers(
  tokenizer: text.Tokenizer,
  prompts: list[np.ndarray | str],
  said: list[engine.Completion],
) -> Iterator[Answer]:
  """Completions as answers, with the errors between them."""
  completions = iter(said)
  for prompt in prompts:
    if isinstance(prompt, str):
      yield Answer(None, "error", error=prompt)
      continue
    done = next(completions)
    ids = done.tokens if done.truncated else done.tokens[:-1]
    yield Answer(
      tokenizer.prefill + text.decode(tokenizer, ids),
      "length" if done.truncated else "stop",
      len(prompt),
      len(done.tokens),
    )
