"""Processes that answer questions and may be killed: a line in, a line out.

A worker is a program that prints one line when it is ready, and then one line
of JSON for each line of JSON that it reads. Time counts from when a ready
worker takes a question, so neither waiting for one nor its start is time lost.
What is late or dead is killed and replaced. No signals and no forks: a pool
works in any thread and beside jax, and a forked child gets its own workers.
"""

import concurrent.futures
import dataclasses
import json
import os
import queue
import select
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

# A worker that takes longer to say that it is ready is broken.
START_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Answer:
  """What came of a question: `value`, or why there is none.

  `seconds` is how long a worker was at it.
  """

  kind: Literal["done", "timeout", "error"]
  value: Any = None
  seconds: float = 0.0


class _Died(Exception):
  """The worker ended before it had answered."""


class _Worker:
  """One process, and what it has written beyond the last line read."""

  def __init__(self, command: Sequence[str]):
    self.process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={},  # no secret of the parent's
      start_new_session=True,  # Ctrl-C is the parent's to handle
    )
    assert self.process.stdin and self.process.stdout
    self._into = self.process.stdin.fileno()
    self._out = self.process.stdout.fileno()
    os.set_blocking(self._into, False)
    self._rest = b""
    self.uses = 0

  def exchange(self, line: bytes, seconds: float) -> bytes:
    """Writes a line and reads one; TimeoutError or _Died where none comes."""
    end = time.monotonic() + seconds
    while b"\n" not in self._rest:
      left = end - time.monotonic()
      if left <= 0:
        raise TimeoutError
      writes = [self._into] if line else []
      ready, free, _ = select.select([self._out], writes, [], left)
      if free:
        try:
          line = line[os.write(self._into, line) :]
        except BrokenPipeError as error:
          raise _Died from error
      if ready:
        read = os.read(self._out, 1 << 16)
        if not read:
          raise _Died
        self._rest += read
    answer, _, self._rest = self._rest.partition(b"\n")
    return answer

  def kill(self) -> None:
    """Ends the process and waits for its end."""
    self.process.kill()
    self.process.communicate()


class Pool:
  """Up to `workers` processes of one command, started as they are needed.

  A worker is retired after `uses` questions, so that what it hoards is freed.
  """

  def __init__(
    self,
    command: Sequence[str],
    *,
    workers: int,
    seconds: float,
    uses: int = 5000,
  ):
    if workers < 1 or seconds <= 0:
      raise ValueError(f"pool: {workers} workers for {seconds} s cannot answer")
    self._command, self._workers = list(command), workers
    self._seconds, self._uses = seconds, uses
    self._places = self._empty()

  def _empty(self) -> queue.LifoQueue[_Worker | None]:
    """A place for each worker; the last one used is the first taken."""
    self._owner = os.getpid()
    places = queue.LifoQueue()
    for _ in range(self._workers):
      places.put(None)
    return places

  def ask(self, question: Any, seconds: float | None = None) -> Answer:
    """One question of JSON, within `seconds` of work (None: the pool's).

    A worker that dies is replaced and asked once more: it may have been killed
    from outside. A second death, like a worker that does not start, is an
    error.
    """
    if self._owner != os.getpid():  # a fork: those pipes are the parent's
      self._places = self._empty()
    line = json.dumps(question).encode() + b"\n"
    places = self._places
    worker = places.get()
    try:
      for _ in range(2):
        worker, answer = self._try(worker, line, seconds or self._seconds)
        if answer:
          return answer
      return Answer("error", "the worker died twice on one question")
    except BaseException:
      worker = None  # killed: its late answer would be taken for the next one's
      raise
    finally:
      places.put(worker)

  def _try(
    self, worker: _Worker | None, line: bytes, seconds: float
  ) -> tuple[_Worker | None, Answer | None]:
    """The worker that is left, and its answer; None for one that died."""
    try:
      if worker is None or worker.uses >= self._uses:
        worker = self._started(worker)
      worker.uses += 1
      start = time.monotonic()
      said = json.loads(worker.exchange(line, seconds))
      return worker, Answer("done", said, time.monotonic() - start)
    except _Died:
      answer = None
    except TimeoutError:
      answer = Answer("timeout", f"not done within {seconds:g} s", seconds)
    except (OSError, ValueError) as error:
      answer = Answer("error", f"{type(error).__name__}: {error}"[:300])
    except BaseException:
      if worker:
        worker.kill()
      raise
    if worker:
      worker.kill()
    return None, answer

  def _started(self, old: _Worker | None) -> _Worker:
    """A worker that is ready, in place of an old one."""
    if old:
      old.kill()
    worker = _Worker(self._command)
    try:
      worker.exchange(b"", START_SECONDS)
    except BaseException as error:
      worker.kill()
      if isinstance(error, _Died | TimeoutError):
        raise OSError(f"{self._command[-1]} does not start") from error
      raise
    return worker

  def map(
    self, questions: Iterable[Any], seconds: float | None = None
  ) -> list[Answer]:
    """The answers to many questions, in their order."""
    with concurrent.futures.ThreadPoolExecutor(self._workers) as threads:
      return list(threads.map(lambda q: self.ask(q, seconds), questions))

  def close(self) -> None:
    """Ends the workers once each has answered; later questions start new."""
    if self._owner != os.getpid():
      return
    for worker in [self._places.get() for _ in range(self._workers)]:
      if worker:
        worker.kill()
      self._places.put(None)
