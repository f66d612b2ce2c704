"""Any OpenAI-compatible endpoint: every prompt once, in order, within a budget.

Requests stream, so that an answer of an hour is no time-out, and what comes
back is whole or is asked again. The ledger holds each answer: the same call
after a kill asks for nothing that it has.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import random
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import openai

from research.teachers import answers
from research.teachers.answers import Answer, Messages
from research.teachers.ledger import NONE, Ledger, Tokens
from research.types import Problem, Trace

LONGEST = 60.0  # seconds between two attempts
AHEAD = 4  # prompts that wait for a free place, times `concurrency`


@dataclasses.dataclass(frozen=True)
class Endpoint:
  """Whom to ask and how; prices are in money per million tokens.

  The key is read from the environment variable `key`. `most_tokens` and
  `most_money` bound what the ledger's requests may cost in all, checked before
  each request: those on their way may go over it. Where the endpoint tells no
  usage, or an attempt fails, an upper estimate counts, marked so in the ledger:
  a token a byte, and `max_tokens` for an answer that may have been written.
  """

  url: str
  model: str
  max_tokens: int
  temperature: float = 0.6
  top_p: float = 0.95
  concurrency: int = 16
  attempts: int = 6
  timeout: float = 120.0  # seconds without a word
  first_wait: float = 1.0  # seconds before the second attempt
  prompt_price: float = 0.0
  completion_price: float = 0.0
  most_tokens: int | None = None
  most_money: float | None = None
  key: str = "OPENAI_API_KEY"

  def __post_init__(self):
    """Raises ValueError on numbers with which nothing is asked."""
    if min(self.max_tokens, self.concurrency, self.attempts) < 1:
      raise ValueError(f"{self}: these must be at least 1")


def write(
  task: Any, problems: Iterable[Problem], n: int, seed: int, **how: Any
) -> Generator[Trace, None, dict[str, Any]]:
  """Yields `n` traces a problem, in order; returns the ledger's account.

  `how` is that of `reply`.
  """
  del task
  ask_all = functools.partial(reply, seed=seed, **how)
  return answers.traces(problems, n, ask_all)


def reply(
  conversations: Iterable[Messages],
  seed: int,
  *,
  ledger: str,
  system: str | None = None,
  **how: Any,
) -> answers.Replies:
  """Yields an answer a conversation; returns what the ledger's cost in all.

  `ledger` is a path and `how` are Endpoint's fields. `system` goes before
  every conversation. An endpoint draws as it likes: `seed` says nothing to it.
  """
  del seed
  endpoint, book = Endpoint(**how), Ledger(pathlib.Path(ledger))
  try:
    yield from ask(answers.under(conversations, system), endpoint, book)
    return dataclasses.asdict(book.spent()) | {"money": money(endpoint, book)}
  finally:
    book.close()


class BudgetSpent(Exception):
  """The ledger's requests have cost what they may."""


class _Cut(Exception):
  """An answer ended before its end."""


def ask(
  prompts: Iterable[Messages], endpoint: Endpoint, ledger: Ledger
) -> Iterator[Answer]:
  """Yields an answer a prompt, in order; equal prompts are samples of one.

  A prompt that the endpoint refuses, or that fails `attempts` times, yields an
  Answer with an error. What the ledger has is not asked for again.

  Raises:
    BudgetSpent: the next prompt would go over the budget; all is kept.
    openai.APIStatusError: the key, the model or the address is wrong.
  """
  client = openai.OpenAI(
    base_url=endpoint.url,
    api_key=os.environ.get(endpoint.key, "none"),
    max_retries=0,  # the ledger has to see every attempt
    timeout=endpoint.timeout,
  )
  waiting: collections.deque[concurrent.futures.Future[Answer]]
  waiting = collections.deque()
  pool = concurrent.futures.ThreadPoolExecutor(endpoint.concurrency)
  try:
    for name, messages in _named(prompts, endpoint):
      waiting.append(
        pool.submit(_answer, client, endpoint, ledger, name, messages)
      )
      if len(waiting) > AHEAD * endpoint.concurrency:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
    client.close()


def _named(
  prompts: Iterable[Messages], endpoint: Endpoint
) -> Iterator[tuple[str, Messages]]:
  """Names a request by all that its answer depends on, and its sample."""
  how = endpoint.model, endpoint.max_tokens, endpoint.temperature
  seen: collections.Counter[str] = collections.Counter()
  for messages in prompts:
    text = json.dumps([*how, endpoint.top_p, list(map(dict, messages))])
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    yield f"{digest}/{seen[digest]}", messages
    seen[digest] += 1


def _answer(
  client: openai.OpenAI,
  endpoint: Endpoint,
  ledger: Ledger,
  name: str,
  messages: Messages,
) -> Answer:
  """Asks until an answer is whole, and keeps it."""
  found = ledger.answer(name)
  if found is not None:
    return found
  prompt = _bytes(messages)
  error: Exception | None = None
  for attempt in range(endpoint.attempts):
    if attempt:
      time.sleep(_wait(endpoint, name, attempt, error))
    _check_budget(endpoint, ledger)
    ledger.ask(name, (prompt, endpoint.max_tokens))
    try:
      answer = _stream(client, endpoint, messages)
    except (openai.OpenAIError, _Cut, ValueError, OSError) as failed:
      error = failed
      ledger.lose(name, repr(error)[:300], _lost(endpoint, prompt, error))
      if isinstance(error, _FATAL):
        raise
      if isinstance(error, openai.BadRequestError):
        return _failed(ledger, name, str(error))
      continue
    ledger.store(name, answer, _untold(endpoint, prompt, answer))
    return answer
  said = f"{type(error).__name__} {endpoint.attempts} times, last: {error}"
  return _failed(ledger, name, said)


def _failed(ledger: Ledger, name: str, error: str) -> Answer:
  answer = Answer(None, "error", error=error)
  ledger.store(name, answer)
  return answer


def _bytes(messages: Messages) -> int:
  """No fewer than a prompt's tokens: JSON's marks stand for a template's."""
  text = json.dumps(list(map(dict, messages)), ensure_ascii=False)
  return len(text.encode(errors="surrogatepass"))


def _untold(endpoint: Endpoint, prompt: int, answer: Answer) -> Tokens:
  """Tokens of an answer without usage; one more byte than text ends it."""
  if answer.prompt_tokens:
    return NONE
  written = len((answer.text or "").encode(errors="surrogatepass")) + 1
  return prompt, min(written, endpoint.max_tokens)


def _lost(endpoint: Endpoint, prompt: int, error: Exception) -> Tokens:
  """Tokens of an attempt that failed: who refuses has written nothing."""
  if isinstance(error, openai.APIStatusError):
    return prompt, endpoint.max_tokens * (error.status_code in _GATEWAY)
  if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
    return NONE  # it never left
  return prompt, endpoint.max_tokens


_GATEWAY = (408, 502, 504, 524)  # it gave up on what may go on behind it
_FATAL = (
  openai.AuthenticationError,
  openai.PermissionDeniedError,
  openai.NotFoundError,
)


def _wait(
  endpoint: Endpoint, name: str, attempt: int, error: Exception | None
) -> float:
  """Seconds: what the endpoint asks for, else twice as long each time."""
  if isinstance(error, openai.APIStatusError):
    asked = error.response.headers.get("retry-after", "")
    if asked.replace(".", "", 1).isdigit():
      return min(float(asked), LONGEST)
  spread = random.Random(f"{name}/{attempt}").uniform(0.5, 1.0)
  return min(endpoint.first_wait * 2 ** (attempt - 1), LONGEST) * spread


def money(endpoint: Endpoint, ledger: Ledger) -> float:
  """Returns what the ledger's requests cost at the endpoint's prices."""
  spent = ledger.spent()
  prompt = spent.prompt_tokens * endpoint.prompt_price
  return (prompt + spent.completion_tokens * endpoint.completion_price) / 1e6


def _check_budget(endpoint: Endpoint, ledger: Ledger) -> None:
  spent = ledger.spent()
  tokens = spent.prompt_tokens + spent.completion_tokens
  limits = (
    ("tokens", tokens, endpoint.most_tokens),
    ("money", money(endpoint, ledger), endpoint.most_money),
  )
  for name, used, most in limits:
    if most is not None and used >= most:
      raise BudgetSpent(
        f"{used:g} of most_{name}={most:g} are spent on {spent.answered} "
        "answers, which are kept: raise it and run again to go on"
      )


def _stream(
  client: openai.OpenAI, endpoint: Endpoint, messages: Messages
) -> Answer:
  """Returns one answer; a reasoning of its own comes between <think> marks."""
  thought, text, finish, usage = [], [], None, None
  stream = client.chat.completions.create(
    model=endpoint.model,
    messages=list(map(dict, messages)),  # type: ignore[arg-type]
    max_tokens=endpoint.max_tokens,
    temperature=endpoint.temperature,
    top_p=endpoint.top_p,
    stream=True,
    stream_options={"include_usage": True},
  )
  with stream:
    for chunk in stream:
      usage = chunk.usage or usage
      for choice in chunk.choices:
        thought.append(getattr(choice.delta, "reasoning_content", None) or "")
        text.append(choice.delta.content or "")
        finish = choice.finish_reason or finish
  if finish is None:
    raise _Cut("the stream ended without a finish_reason")
  told: Any = usage
  whole = "".join(text)
  if any(thought):
    whole = f"<think>\n{''.join(thought)}\n</think>\n\n{whole}"
  counts = (0, 0)
  # Some tell zeros, or half of it.
  if told is not None and told.prompt_tokens and told.completion_tokens:
    counts = told.prompt_tokens, told.completion_tokens
  return Answer(whole, finish, *counts)
