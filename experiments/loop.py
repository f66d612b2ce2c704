"""The loop around the train step: draw, step, log, save, resume."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import jax
from jax.sharding import Mesh
from rich import progress

from research import sharding
from research.models import lora, transformer
from research.models.config import Model
from research.training import checkpoint, metrics
from research.training.step import Step
from research.types import TrainState


@dataclasses.dataclass(frozen=True)
class Loop:
  """How long to train, how often to save and how many to keep.

  The newest `keep` stay, and the one with the highest `best`: a metric's name,
  behind "-" where less is better, as the step that was saved saw it.
  """

  steps: int
  save_every: int
  keep: int = 2
  best: str | None = None

  def __post_init__(self):
    """Raises ValueError where a number is not positive."""
    if min(self.steps, self.save_every, self.keep) < 1:
      raise ValueError(f"{self}: all three must be at least 1")

  def merit(self, means: dict[str, float]) -> float | None:
    """Returns what is highest in the best checkpoint; None without `best`.

    Raises:
      ValueError: a step has no such metric.
    """
    if self.best is None:
      return None
    name = self.best.removeprefix("-")
    if name not in means:
      raise ValueError(
        f"loop.best: no metric {name!r}; there are {', '.join(sorted(means))}"
      )
    return -means[name] if self.best.startswith("-") else means[name]


# (state, step) -> the step's inputs, on their devices, and the host's metrics
Draw = Callable[[TrainState, int], tuple[Any, dict]]


class Position(Protocol):
  """Where `draw` stands, where that is more than the step's number."""

  def state(self) -> Any:
    """Returns the position as JSON."""
    ...

  def restore(self, state: Any) -> None:
    """Goes back to a position."""
    ...


@contextlib.contextmanager
def deferred_sigterm() -> Iterator[threading.Event]:
  """Within, SIGTERM only sets the event: a step can end and be saved."""
  asked = threading.Event()
  before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield asked
  finally:
    signal.signal(signal.SIGTERM, before)


def _trained(model: Model, mesh: Mesh) -> Any:
  """Returns the sharding of each parameter that a checkpoint holds."""
  boxed = lora.trained(model, transformer.abstract(model))
  return sharding.of_parameters(boxed, mesh)


def layout(model: Model, mesh: Mesh, state: Any) -> Any:
  """Returns the sharding of each leaf of an (abstract) TrainState."""
  params = _trained(model, mesh)
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

  These are the adapters alone where the model has a LoRA.

  Raises:
    FileNotFoundError: there is none.
  """
  shapes = jax.eval_shape(
    functools.partial(transformer.init, model), jax.random.key(0)
  )
  place = lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at)
  abstract = jax.tree.map(
    place, lora.trained(model, shapes), _trained(model, mesh)
  )
  found = checkpoint.restore(path, abstract, only="params")
  if found is None:
    raise FileNotFoundError(f"{path}: no checkpoint there; run its stage first")
  return found[0]


def _check(
  step: int,
  means: dict[str, float] | None,
  saver: checkpoint.Checkpointer,
) -> None:
  if means and means["nonfinite"]:
    saver.wait()
    newest = "none was saved"
    if saved := saver.steps():
      newest = f"{saver.directory}/{saved[-1]:08d} is good"
    raise FloatingPointError(
      f"step {step}: the loss or its gradient is not finite; of checkpoints, "
      f"{newest}. Lower the learning rate or look at the data of that step"
    )


@contextlib.contextmanager
def _screen(name: str, start: int, steps: int) -> Iterator[Callable[..., None]]:
  """Yields show(step, means): a bar, and a word where a step smells."""
  bar = progress.Progress(
    f"[bold]{name:>13}",
    progress.BarColumn(bar_width=24),
    progress.MofNCompleteColumn(),
    progress.TimeRemainingColumn(compact=True),
    progress.TextColumn("{task.description}"),
  )
  first: dict[str, float] = {}

  def show(step: int, means: dict[str, float] | None) -> None:
    if means is None:
      return
    first.update(first or means)
    bar.update(task, completed=step + 1, description=_say(means))
    if (step + 1) % max(steps // 10, 1) == 0:
      for line in metrics.diagnose(means, first):
        bar.console.print(f"[yellow]{name} step {step}: {line}[/yellow]")

  with bar:
    task = bar.add_task("", total=steps, completed=start)
    yield show


def _say(means: dict[str, float]) -> str:
  names = ("loss", "reward", "entropy", "length")
  return "  ".join(f"{n} {means[n]:.3f}" for n in names if n in means)


def fit(
  loop: Loop,
  workdir: pathlib.Path,
  state: Callable[[], TrainState],
  abstract: Any,
  step: Step,
  draw: Draw,
  *,
  position: Position | None = None,
  frozen: Any = None,
  config: Any = None,
) -> TrainState:
  """Trains from the newest checkpoint in `workdir`, or from `state()`.

  The resolved `config` is saved, `frozen` (its stage holds it) never. SIGTERM
  saves and exits with 0; a loss that is not finite raises FloatingPointError.
  """
  with contextlib.ExitStack() as stack:
    saver = stack.enter_context(_saver(loop, workdir))
    now = _resume(saver, state, abstract, position, frozen)
    start = int(now.step)
    asked = stack.enter_context(deferred_sigterm())
    writer = stack.enter_context(metrics.Writer(workdir, start))
    show = stack.enter_context(_screen(workdir.name, start, loop.steps))
    for i in range(start, loop.steps):
      inputs, seen = draw(now, i)
      now, told = step(now, inputs)
      means = writer.write(i, metrics.merge(told, seen))
      _check(i - 1, means, saver)
      show(i - 1, means)
      stop = asked.is_set()
      if stop or i + 1 == loop.steps or (i + 1) % loop.save_every == 0:
        means = writer.flush() or {}
        _check(i, means, saver)
        show(i, means)
        host = {"position": position and position.state(), "config": config}
        saver.save(i + 1, _bare(now), host, loop.merit(means))
      if stop:
        _leave(saver, workdir.name, i + 1)
  return now


def _saver(loop: Loop, workdir: pathlib.Path) -> checkpoint.Checkpointer:
  best = "max" if loop.best else None
  return checkpoint.Checkpointer(workdir / "checkpoints", loop.keep, best)


def _bare(state: TrainState) -> TrainState:
  return dataclasses.replace(state, frozen=None)


def _leave(saver: checkpoint.Checkpointer, name: str, step: int) -> NoReturn:
  saver.close()
  print(f"{name}: stopped and saved at step {step}")
  sys.exit(0)


def _resume(
  saver: checkpoint.Checkpointer,
  state: Callable[[], TrainState],
  abstract: Any,
  position: Position | None,
  frozen: Any,
) -> TrainState:
  found = saver.restore(abstract)
  if found is not None and position is not None:
    position.restore(found[1]["position"])
  now = state() if found is None else found[0]
  return dataclasses.replace(now, frozen=frozen)
