"""The loop around the train step: draw, step, log, save, resume."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
from jax.sharding import Mesh
from rich import progress

from research import sharding
from research.models import transformer
from research.models.config import Model
from research.training import checkpoint, metrics
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Loop:
  """How long to train, how often to save and how many to keep."""

  steps: int
  save_every: int
  keep: int = 2


class Source(Protocol):
  """Where a step's inputs come from, and the position there."""

  def draw(self, state: TrainState, step: int) -> tuple[Any, dict]:
    """Returns the step's inputs, on their devices, and the host's metrics."""
    ...

  def state(self) -> Any:
    """Returns the position as JSON."""
    ...

  def restore(self, state: Any) -> None:
    """Goes back to a position."""
    ...


@contextlib.contextmanager
def deferred_sigterm() -> Iterator[threading.Event]:
  """Within, SIGTERM only sets the event, so that a step can end and be saved."""
  asked = threading.Event()
  before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield asked
  finally:
    signal.signal(signal.SIGTERM, before)


def layout(model: Model, mesh: Mesh, state: Any) -> Any:
  """Returns the sharding of each leaf of an (abstract) TrainState."""
  params = sharding.of_parameters(transformer.abstract(model), mesh)
  return sharding.like_parameters(state, state.params, params, mesh)


def begin(
  model: Model, mesh: Mesh, fresh: Callable[[], TrainState]
) -> tuple[Callable[[], TrainState], Any]:
  """Returns (make, abstract): the sharded first state, and its shapes."""
  shapes = jax.eval_shape(fresh)
  shardings = layout(model, mesh, shapes)
  place = lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)
  abstract = jax.tree.map(place, shapes, shardings)
  return jax.jit(fresh, out_shardings=shardings), abstract


def load_params(path: pathlib.Path, model: Model, mesh: Mesh) -> Any:
  """Returns the parameters of the newest checkpoint under `path`, sharded.

  Raises:
    FileNotFoundError: there is none.
  """
  shapes = jax.eval_shape(
    functools.partial(transformer.init, model), jax.random.key(0)
  )
  shardings = sharding.of_parameters(transformer.abstract(model), mesh)
  place = lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)
  abstract = jax.tree.map(place, shapes, shardings)
  found = checkpoint.restore(path, abstract, only="params")
  if found is None:
    raise FileNotFoundError(f"{path}: no checkpoint there; run its stage first")
  return found[0]


def _check(step: int, means: dict[str, float] | None, workdir: Any) -> None:
  if means and means["nonfinite"]:
    raise FloatingPointError(
      f"step {step}: the loss or its gradient is not finite; the parameters "
      f"were left as they were and the last good checkpoint is in "
      f"{workdir}/checkpoints. Lower the learning rate or look at the data "
      "of that step"
    )


def _bar(name: str) -> progress.Progress:
  return progress.Progress(
    f"[bold]{name:>12}",
    progress.BarColumn(bar_width=30),
    progress.MofNCompleteColumn(),
    progress.TimeRemainingColumn(),
    progress.TextColumn("{task.description}"),
  )


def _say(means: dict[str, float]) -> str:
  names = ("loss", "reward", "entropy", "length")
  return "  ".join(f"{n} {means[n]:.3f}" for n in names if n in means)


def fit(
  loop: Loop,
  workdir: pathlib.Path,
  state: Callable[[], TrainState],
  abstract: Any,
  step: Callable[[TrainState, Any], tuple[TrainState, dict]],
  source: Source,
  *,
  frozen: Any = None,
) -> TrainState:
  """Trains from the newest checkpoint in `workdir`, or from `state()`.

  `frozen` is attached to the state and never saved: its stage holds it. SIGTERM
  saves and exits with 0.

  Raises:
    FloatingPointError: a loss was not finite; nothing bad has been saved.
  """
  with contextlib.ExitStack() as stack:
    folder = workdir / "checkpoints"
    saver = stack.enter_context(checkpoint.Checkpointer(folder, loop.keep))
    found = saver.restore(abstract)
    now = state() if found is None else found[0]
    if found is not None:
      source.restore(found[1]["source"])
    start = int(now.step)
    asked = stack.enter_context(deferred_sigterm())
    writer = stack.enter_context(metrics.Writer(workdir, start))
    bar = stack.enter_context(_bar(workdir.name))
    task = bar.add_task("", total=loop.steps, completed=start)
    first: dict[str, float] = {}
    now = now.replace(frozen=frozen)
    for i in range(start, loop.steps):
      inputs, seen = source.draw(now, i)
      now, told = step(now, inputs)
      means = writer.write(i, metrics.merge(told, seen))
      _check(i - 1, means, workdir)
      if means:
        first = first or means
        bar.update(task, completed=i, description=_say(means))
        if i % max(loop.steps // 10, 1) == 0:
          _diagnose(bar, i - 1, means, first)
      last = i + 1 == loop.steps or asked.is_set()
      if last or (i + 1) % loop.save_every == 0:
        _check(i, writer.flush(), workdir)
        saver.save(i + 1, now.replace(frozen=None), {"source": source.state()})
      if asked.is_set():
        saver.wait()
        bar.console.print(f"{workdir.name}: stopped and saved at step {i + 1}")
        sys.exit(0)
    bar.update(task, completed=loop.steps)
  return now


def _diagnose(bar: Any, step: int, means: dict, first: dict) -> None:
  for line in metrics.diagnose(means, first):
    bar.console.print(f"[yellow]step {step}: {line}[/yellow]")
