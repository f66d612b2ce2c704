"""What a daemon thread makes: Python does not wait for it before it ends."""

import threading
from collections.abc import Callable
from concurrent import futures


def begin[T](
  make: Callable[[], T],
) -> tuple[futures.Future[T], threading.Thread]:
  """Returns what will hold what `make` returns or raises, and its thread."""
  made: futures.Future[T] = futures.Future()

  def run() -> None:
    try:
      made.set_result(make())
    except BaseException as error:  # else nobody hears of it
      made.set_exception(error)

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  return made, thread
