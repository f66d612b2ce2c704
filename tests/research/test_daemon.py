"""What a daemon thread makes or raises reaches who asks for it."""

import threading

import pytest

from research import daemon


def test_what_is_made_is_there_and_nobody_waited():
  go = threading.Event()
  made, thread = daemon.begin(lambda: go.wait(30) and "made")
  assert thread.daemon and not made.done()
  go.set()
  assert made.result(30) == "made"


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_is_raised_is_raised_to_who_asks(error):
  def fail():
    raise error("planted")

  made, _ = daemon.begin(fail)
  with pytest.raises(error, match="planted"):
    made.result(30)
