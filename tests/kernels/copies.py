"""DMA under a watchful interpreter, and copies that nobody waits for."""

import types

from jax._src.pallas.mosaic.interpret import (
  interpret_pallas_call as interpreter,
)
from jax.experimental.pallas import tpu as pltpu

# Copies arrive when they are waited for, and buffers begin as NaN.
STRICT = pltpu.InterpretParams(dma_execution_mode="on_wait", detect_races=True)


def raced():
  """If the last strict run had a race; None before the first."""
  return interpreter.races and interpreter.races.races_found


def hasty(make, waits=lambda: False):
  """`make`, a maker of copies, whose wait does nothing unless `waits()`."""

  def made(*args):
    copy = make(*args)
    wait = lambda: copy.wait() if waits() else None
    return types.SimpleNamespace(start=copy.start, wait=wait)

  return made
