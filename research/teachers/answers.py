"""What is asked of a teacher that reads messages, and what it answers."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

from research.types import Problem, Trace

Messages = tuple[Mapping[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Answer:
  """What came back for one request; `text` is None where nothing did.

  `finish` is why it ended: "stop", "length", or the "error" that `error` tells.
  """

  text: str | None
  finish: str
  prompt_tokens: int = 0
  completion_tokens: int = 0
  error: str | None = None


# Answers in order; what it returns at its end is its account, plain JSON.
Replies = Generator[Answer, None, dict[str, Any]]


def question(text: str) -> Messages:
  """A conversation of one turn, the user's."""
  return ({"role": "user", "content": text},)


def under(
  conversations: Iterable[Messages], system: str | None
) -> Iterator[Messages]:
  """Conversations behind a system's message, where there is one."""
  before = () if system is None else ({"role": "system", "content": system},)
  return ((*before, *messages) for messages in conversations)


def traces(
  problems: Iterable[Problem],
  n: int,
  reply: Callable[[Iterable[Messages]], Replies],
) -> Generator[Trace, None, dict[str, Any]]:
  """Yields what `reply` answers to each problem, `n` times; its account."""
  places = [(problem, sample) for problem in problems for sample in range(n)]
  answers = reply(question(problem.prompt) for problem, _ in places)
  for problem, sample in places:
    yield of_answer(Trace(problem, None, sample, "error"), next(answers))
  return account(answers)


def account(answers: Replies) -> dict[str, Any]:
  """What an exhausted teacher returns; ValueError where it has more to say."""
  try:
    answer = next(answers)
  except StopIteration as end:
    return end.value or {}
  raise ValueError(f"a teacher answered more often than asked: {answer}")


def of_answer(trace: Trace, answer: Answer) -> Trace:
  """A trace with an answer's text instead of its own.

  An end that is neither "stop" nor "length", such as a filter's, is an error.
  """
  if answer.text is not None and answer.finish in ("stop", "length"):
    text, finish, error = answer.text, answer.finish, None
  else:
    text, finish = None, "error"
    error = answer.error or f"the teacher ended with {answer.finish!r}"
  return dataclasses.replace(
    trace,
    text=text,
    finish=finish,
    tokens=answer.completion_tokens or None,
    error=error,
  )
