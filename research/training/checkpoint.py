"""Checkpoints: orbax writes, a SHA-256 manifest vouches, a rename commits.

A checkpoint of step 120 is the directory `00000120`: `checkpoint/` is orbax's
(the arrays and one JSON item), `manifest.json` lists path, size and hash of
every file in it. While it is written its name is `tmp-00000120`, so a step
number is either a whole checkpoint or absent. Orbax alone restores a flipped
bit in silence; here every file is hashed before a number of it is used. Needs
a POSIX file system (rename of a directory is atomic) that all processes share.
"""

import concurrent.futures
import errno
import itertools
import json
import logging
import math
import os
import pathlib
import shutil
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from research.training import manifest as manifests

_CHUNKS = "checkpoint"
_TMP = "tmp-"
_BARRIER_MS = 20 * 60 * 1000
_log = logging.getLogger(__name__)
_Path = str | os.PathLike[str]


def steps(directory: _Path) -> list[int]:
  """Lists the committed steps in ascending order; damaged ones included."""
  root = pathlib.Path(directory)
  if not root.is_dir():
    return []
  return sorted(int(p.name) for p in root.iterdir() if p.name.isdecimal())


def best_step(directory: _Path, best: Literal["max", "min"]) -> int | None:
  """The step with the best finite metric, the earliest of equals, or None."""
  found = {}
  for step in steps(directory):
    try:
      metric = _record(_path(directory, step))["metric"]
    except (OSError, ValueError, KeyError) as error:
      _log.warning("%s has no metric: %s", _path(directory, step), error)
      continue
    if metric is not None and math.isfinite(metric):
      found[step] = metric if best == "max" else -metric
  return max(found, key=lambda step: found[step]) if found else None


def _path(directory: _Path, step: int) -> pathlib.Path:
  """Where the committed checkpoint of `step` lies."""
  return pathlib.Path(directory) / f"{step:08d}"


def _record(path: pathlib.Path) -> dict[str, Any]:
  """Reads the JSON item of the checkpoint at `path`."""
  return json.loads((path / _CHUNKS / "host" / "metadata").read_text())


def _named(tree: Any) -> dict[str, Any]:
  """Flattens a pytree to {"params/layers/q": leaf}; None is no leaf.

  Raises ValueError where two leaves share a name.
  """
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  named = {name(path): leaf for path, leaf in leaves}
  if len(named) != len(leaves):
    raise ValueError("two leaves share a name: a dict key contains '/'")
  return named


def _is_key(leaf: Any) -> bool:
  """Whether a leaf is a typed PRNG key array."""
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _summary(named: dict[str, Any]) -> dict[str, str]:
  """One line a leaf, such as "bfloat16[4, 8]"."""
  return {k: f"{x.dtype}{list(x.shape)}" for k, x in named.items()}


def _bits(named: dict[str, Any]) -> dict[str, jax.Array]:
  """What orbax is given: keys become the numbers they hold.

  Raises TypeError naming a leaf that is not a jax array.
  """
  for name, leaf in named.items():
    if not isinstance(leaf, jax.Array):
      kind = type(leaf).__name__
      raise TypeError(f"{name} is a {kind}; a state holds jax arrays only")
  key_data = jax.random.key_data
  return {k: key_data(x) if _is_key(x) else x for k, x in named.items()}


def _snapshot(host: Any, metric: float | None, named: Any) -> dict[str, Any]:
  """Copies the host's state as JSON, so later changes cannot leak in.

  Raises TypeError when `host` does not consist of JSON values.
  """
  impl = jax.random.key_impl
  keys = {k: str(impl(x)) for k, x in named.items() if _is_key(x)}
  leaves = {"leaves": _summary(named), "keys": keys}
  try:
    return json.loads(json.dumps({"host": host, "metric": metric, **leaves}))
  except (TypeError, ValueError) as error:
    raise TypeError(f"the host's state is not JSON: {error}") from error


def _check_leaves(path: pathlib.Path, saved: Any, asked: Any) -> None:
  """Raises ValueError naming the leaves that differ."""
  lines = [
    f"{name} is {saved.get(name, 'absent')} in the checkpoint and "
    f"{asked.get(name, 'absent')} in the state asked for"
    for name in sorted({*saved, *asked})
    if saved.get(name) != asked.get(name)
  ]
  if lines:
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    raise ValueError(f"{path} does not fit: {'; '.join(lines[:3])}{more}")


def _choose(directory: _Path, step: int | None) -> int | None:
  """The newest whole step (or `step`, when it is whole), None if none exists.

  Raises RuntimeError (all are damaged) or FileNotFoundError (no such `step`).
  """
  present = steps(directory)
  if step is not None and step not in present:
    raise FileNotFoundError(f"no checkpoint {step} in {directory}: {present}")
  reasons = []
  for candidate in [step] if step is not None else present[::-1]:
    reason = manifests.damage(_path(directory, candidate))
    if reason is None:
      return candidate
    reasons.append(f"{_path(directory, candidate)} is damaged ({reason})")
    _log.warning("%s; skipped", reasons[-1])
  if not reasons:
    return None
  raise RuntimeError(
    f"no whole checkpoint: {'; '.join(reasons)}. Remove them to start anew."
  )


def _agree(directory: _Path, step: int | None) -> int | None:
  """`_choose` on process 0, told to all, so that the files are hashed once."""
  if jax.process_count() == 1:
    return _choose(directory, step)
  chosen = _choose(directory, step) if jax.process_index() == 0 else None
  number = np.int32(-1 if chosen is None else chosen)
  number = int(ocp.multihost.broadcast_one_to_all(number))
  return None if number < 0 else number


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
  """The abstract array that orbax restores for `leaf`, with its sharding."""
  sharding = leaf.sharding
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  if _is_key(leaf):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def restore(
  directory: _Path, abstract: Any, *, step: int | None = None, only: str = ""
) -> tuple[Any, Any] | None:
  """Restores the newest whole checkpoint, or that of `step`, verified first.

  Reads only, so it also serves another run's directory.

  Args:
    directory: where the checkpoints lie.
    abstract: a pytree of arrays or `jax.ShapeDtypeStruct`; its shardings say
      where the arrays land (the first local device where there is none).
    step: this checkpoint and no other.
    only: restores one branch, such as "params", into `abstract`.

  Returns:
    (state, host), or None when there is no checkpoint.

  Raises:
    RuntimeError: every candidate is damaged; says how.
    FileNotFoundError: `step` is absent.
    ValueError: a leaf is absent or has another shape or dtype; names it.
  """
  found = _agree(directory, step)
  if found is None:
    return None
  return _read(_path(directory, found).absolute(), abstract, only)


def _read(path: pathlib.Path, abstract: Any, only: str) -> tuple[Any, Any]:
  """Reads a verified checkpoint; see `restore`."""
  record = _record(path)
  prefix = f"{only}/" if only else ""
  asked = {prefix + name: leaf for name, leaf in _named(abstract).items()}
  leaves = record["leaves"]
  saved = {k: leaves[k] for k in leaves if k.startswith(prefix)}
  _check_leaves(path, saved, _summary(asked))
  item = {name: _placed(leaf) for name, leaf in asked.items()}
  args = ocp.args.PyTreeRestore(
    item=item,
    restore_args=ocp.checkpoint_utils.construct_restore_args(item),
    partial_restore=True,
  )
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    found = reader.restore(path / _CHUNKS / "state", args=args)
  for name in found.keys() & record["keys"].keys():
    impl = record["keys"][name]
    found[name] = jax.random.wrap_key_data(found[name], impl=impl)
  values = [found[name] for name in asked]
  state = jax.tree.unflatten(jax.tree.structure(abstract), values)
  return state, record["host"]


def _failure(error: Exception, step: int, directory: _Path) -> Exception:
  """The error to raise for a failed write; a full disk keeps its errno."""
  text = f"checkpoint {step} was not written to {directory}"
  full = isinstance(error, OSError) and error.errno == errno.ENOSPC
  if full or os.strerror(errno.ENOSPC) in str(error):
    advice = "no space left on the device; earlier checkpoints are kept"
    return OSError(errno.ENOSPC, f"{text}: {advice}", str(directory))
  if isinstance(error, OSError):
    return OSError(error.errno, f"{text}: {error}", str(directory))
  return RuntimeError(f"{text}: {error}")


def _not_orbax_error(record: logging.LogRecord) -> bool:
  """Drops the tracebacks that orbax logs for errors that it also raises."""
  return record.levelno < logging.ERROR or "orbax" not in record.pathname


class Checkpointer:
  """Owns a directory of checkpoints and the one thread that writes to it.

  Keeps the newest `keep` and, where `best` is given, the one with the best
  metric. Errors of the thread surface in the next `save`, `wait` or `close`.
  Every process of a run makes the same calls; process 0 commits.
  """

  def __init__(
    self,
    directory: _Path,
    keep: int = 3,
    best: Literal["max", "min"] | None = None,
  ):
    """Sweeps half-written checkpoints; OSError when it cannot write here."""
    if keep < 1:
      raise ValueError(f"keep must be at least 1, not {keep}")
    if best not in ("max", "min", None):
      raise ValueError(f'best must be "max", "min" or None, not {best!r}')
    self.directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._best: Literal["max", "min"] | None = best
    if jax.process_index() == 0:
      self._prepare()
    self._rounds = itertools.count()
    self._barrier("open")
    self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._pending: concurrent.futures.Future[None] | None = None
    logging.getLogger("absl").addFilter(_not_orbax_error)
    handler = ocp.CompositeCheckpointHandler("state", "host")
    self._orbax = ocp.AsyncCheckpointer(handler)

  def __enter__(self) -> Self:
    """Returns itself, to be closed at the end of the block."""
    return self

  def __exit__(self, *_: object) -> None:
    """Closes."""
    self.close()

  def save(
    self, step: int, state: Any, host: Any, metric: float | None = None
  ) -> None:
    """Starts writing a checkpoint; an existing one of `step` is replaced.

    Blocks until the arrays are copied to the host (and until the previous
    write ended): `state` may then be donated. `host` is any JSON value;
    tuples come back as lists.
    """
    self.wait()
    named = _named(state)
    arrays = ocp.args.PyTreeSave(_bits(named))
    record = ocp.args.JsonSave(_snapshot(host, metric, named))
    both = ocp.args.Composite(state=arrays, host=record)
    try:
      self._orbax.save(self._tmp(step) / _CHUNKS, args=both)
    except Exception as error:
      self._sweep()
      raise _failure(error, step, self.directory) from error
    self._pending = self._worker.submit(self._finish, step)

  def restore(
    self, abstract: Any, step: int | None = None
  ) -> tuple[Any, Any] | None:
    """Restores from this directory after the write in progress; see above."""
    self.wait()
    return restore(self.directory, abstract, step=step)

  def steps(self) -> list[int]:
    """Lists the committed steps in ascending order."""
    return steps(self.directory)

  def wait(self) -> None:
    """Blocks until the write in progress is committed; raises its error."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self) -> None:
    """Waits, then ends the thread; raises the last write's error."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
      self._orbax.close()

  def _tmp(self, step: int) -> pathlib.Path:
    """Where the checkpoint of `step` is written before it is committed."""
    return self.directory / f"{_TMP}{step:08d}"

  def _prepare(self) -> None:
    """Makes and sweeps the directory; OSError when it is not writable."""
    try:
      self.directory.mkdir(parents=True, exist_ok=True)
      self._sweep()
      probe = self.directory / f"{_TMP}probe"
      probe.mkdir()
      probe.rmdir()
    except OSError as error:
      text = f"checkpoints need a writable directory: {error.strerror}"
      raise OSError(error.errno, text, str(self.directory)) from error

  def _sweep(self) -> None:
    """Removes what a killed or failed write left behind."""
    if jax.process_index() == 0:
      for path in self.directory.glob(f"{_TMP}*"):
        shutil.rmtree(path)

  def _barrier(self, name: str) -> None:
    """Waits for all processes; does nothing in a single one."""
    key = f"pith:{self.directory}:{name}:{next(self._rounds)}"
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=_BARRIER_MS)

  def _finish(self, step: int) -> None:
    """Background: waits for orbax, seals, commits, prunes."""
    try:
      self._orbax.wait_until_finished()
      if jax.process_index() == 0:
        manifests.seal(self._tmp(step))
        self._commit(step)
        self._prune(step)
      self._barrier("committed")
    except Exception as error:
      self._sweep()
      raise _failure(error, step, self.directory) from error

  def _commit(self, step: int) -> None:
    """Gives a sealed checkpoint its number."""
    final = _path(self.directory, step)
    gone = self.directory / f"{_TMP}replaced"
    if final.exists():
      final.rename(gone)
    self._tmp(step).rename(final)
    manifests.fsync(self.directory)
    if gone.exists():
      shutil.rmtree(gone)

  def _remove(self, step: int) -> None:
    """Removes a checkpoint; renamed first, so a kill cannot leave half."""
    gone = self.directory / f"{_TMP}removed-{step:08d}"
    _path(self.directory, step).rename(gone)
    shutil.rmtree(gone)

  def _prune(self, newest: int) -> None:
    """Removes all but the last `keep` up to `newest` and the best of them.

    Later ones were damaged or abandoned when the run went back before them.
    """
    for step in self.steps():
      if step > newest:
        self._remove(step)
    present = self.steps()
    kept: set[int | None] = set(present[-self._keep :])
    if self._best is not None and len(present) > self._keep:
      kept.add(best_step(self.directory, self._best))
    for step in present:
      if step not in kept:
        self._remove(step)
