"""Metrics: pairs of (sum, denominator), a run's log of them, a diagnosis.

A metric is a pair until it is written, so micro-batches, padding and shards
reduce exactly: {"loss": (sum, denominator), ...}.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Self

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

Metrics = Mapping[str, tuple[Any, Any]]
_Path = str | os.PathLike[str]

EQUAL_GROUPS = 0.9
TRUNCATED = 0.3
UNPARSED = 0.5
UNGRADED = 0.05
ENTROPY_LOW = 0.02
ENTROPY_RISE = 2.0
RATIO_OUTSIDE = 0.05


def add(name: str, one: tuple[Any, Any], other: tuple[Any, Any]) -> Any:
  """Joins two pairs of one metric: sums them.

  Of a metric named `..._min` or `..._max`, whose pair is (extreme, 1), it keeps
  the extreme; a denominator of 0 says that there was nothing.
  """
  (x, n), (y, m) = one, other
  if not name.endswith(("_min", "_max")):
    return x + y, n + m
  best = jnp.minimum(x, y) if name.endswith("_min") else jnp.maximum(x, y)
  return jnp.where(n == 0, y, jnp.where(m == 0, x, best)), jnp.maximum(n, m)


def merge(*parts: Metrics) -> dict[str, tuple[Any, Any]]:
  """Joins pairs by name (see `add`); a name may be in some parts only."""
  total: dict[str, tuple[Any, Any]] = {}
  for part in parts:
    for name, pair in part.items():
      total[name] = add(name, total[name], pair) if name in total else pair
  return total


def mean(metrics: Metrics) -> dict[str, float]:
  """Divides on the host in float64; a zero denominator leaves the name out."""
  pairs = jax.device_get(dict(metrics))
  return {
    name: float(value) / float(count)
    for name, (value, count) in pairs.items()
    if float(count) != 0.0
  }


def degenerate_groups(
  rewards_B: Sequence[float] | np.ndarray, group_B: Sequence[int] | np.ndarray
) -> tuple[int, int]:
  """Counts groups whose rewards are all equal: (such groups, all groups).

  The pair is itself the metric `degenerate_groups`. One entry a sample; leave
  out samples whose grading failed. A sample alone is no group.
  """
  rewards_B, group_B = np.asarray(rewards_B), np.asarray(group_B)
  groups, counts = np.unique(group_B, return_counts=True)
  groups = groups[counts > 1]
  equal = sum(np.ptp(rewards_B[group_B == g]) == 0 for g in groups)
  return int(equal), len(groups)


def diagnose(
  means: Mapping[str, float], start: Mapping[str, float] | None = None
) -> list[str]:
  """Says in one line each what smells in a step's means.

  Reads the shares `degenerate_groups`, `truncated`, `unparsed`, `ungraded`,
  `timeout` and `ratio_outside` (token ratios outside [0.9, 1.1]), the count
  `too_long` and, beside a `reward`, `entropy` in nats, each where present;
  `start` holds the means of the run's first step.
  """
  shares = (
    ("degenerate_groups", EQUAL_GROUPS, "of groups have equal rewards"),
    ("truncated", TRUNCATED, "of samples are cut off at the length limit"),
    ("unparsed", UNPARSED, "of samples hold no answer that can be read"),
    ("ungraded", UNGRADED, "of samples could not be graded: the grader fails"),
    ("timeout", UNGRADED, "of samples were graded for too long, and earn 0"),
    ("ratio_outside", RATIO_OUTSIDE, "of token ratios lie outside [0.9, 1.1]"),
  )
  lines = [
    f"{100 * means[name]:.0f} % {text}"
    for name, limit, text in shares
    if name in means and means[name] >= limit
  ]
  if means.get("too_long"):
    lines.append(
      f"{means['too_long']:.0f} examples were longer than a row and left out"
    )
  return lines + _diagnose_entropy(means, start or {})


def _diagnose_entropy(
  means: Mapping[str, float], start: Mapping[str, float]
) -> list[str]:
  """Notices a collapse of a policy's entropy, or its rise since the start.

  Imitation of a teacher that is sure has, and should have, next to none.
  """
  if not {"entropy", "reward"} <= set(means):
    return []
  now = means["entropy"]
  if now < ENTROPY_LOW:
    return [f"entropy collapsed to {now:.3f} nats"]
  if "entropy" in start and now - start["entropy"] > ENTROPY_RISE:
    return [f"entropy rose from {start['entropy']:.2f} to {now:.2f} nats"]
  return []


def write_rollouts(
  workdir: _Path, step: int, rows: Sequence[Mapping[str, Any]]
) -> pathlib.Path:
  """Writes `rollouts/NNNNNN.jsonl` whole or not at all; replaces an old one.

  Raises ValueError or TypeError for a row that is not JSON (NaN is not).
  """
  path = pathlib.Path(workdir) / "rollouts" / f"{step:06d}.jsonl"
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
  replace_file(path, text.encode())
  return path


def replace_file(path: pathlib.Path, data: bytes) -> None:
  """Writes a file so that a reader sees the old or the new one, never half."""
  draft = path.with_name(path.name + ".tmp")
  with draft.open("wb") as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
  draft.replace(path)


def repair(path: _Path, step: int) -> None:
  """Cuts a JSONL log before its first line of `step`, and a torn last line.

  Steps ascend in it. Raises ValueError naming a line that cannot be read.
  """
  file = pathlib.Path(path)
  if not file.exists():
    return
  data = file.read_bytes()
  lines = data.splitlines(keepends=True)
  kept = 0
  for i, line in enumerate(lines):
    try:
      logged = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError) as error:
      if not line.endswith(b"\n"):
        break
      text = f"{file}, line {i + 1} is no line of metrics: {error!r}"
      raise ValueError(text) from error
    if logged >= step:
      break
    kept += len(line)
  os.truncate(file, kept)
  if kept and data[kept - 1 : kept] != b"\n":
    with file.open("ab") as f:
      f.write(b"\n")


def _event(step: int, **fields: Any) -> Any:
  """Makes a TensorBoard event."""
  protocol: Any = event_pb2
  return protocol.Event(step=step, wall_time=time.time(), **fields)


class Writer:
  """Appends a run's metrics to `metrics.jsonl` and to TensorBoard events.

  The pairs of step n are read from the device when step n + 1 is handed in,
  so the host never waits for a step in progress. Before a checkpoint is saved
  call `flush`: then no line that the checkpoint implies can be lost, and a
  killed run's file ends up equal to an uninterrupted one's. Only process 0
  writes.
  """

  def __init__(self, workdir: _Path, step: int = 0):
    """Opens the log of a run that goes on at `step` (0: a new one)."""
    self._held: tuple[int, Metrics] | None = None
    self._log: BinaryIO | None = None
    if jax.process_index() == 0:
      self._open(pathlib.Path(workdir), step)

  def _open(self, root: pathlib.Path, step: int) -> None:
    """Repairs and opens both logs; later events of the same run are purged."""
    events = root / "tensorboard"
    events.mkdir(parents=True, exist_ok=True)
    self._path = root / "metrics.jsonl"
    repair(self._path, step)
    self._log = self._path.open("ab")
    # Not SummaryWriter: it writes in a thread whose death (a full disk) goes
    # unnoticed until the eleventh event blocks for ever.
    suffix = f".{os.getpid()}.{len(list(events.iterdir()))}"
    prefix = str(events / "events")
    self._events = event_file_writer.EventsWriter(prefix, suffix)
    self._events.write_event(_event(step, session_log={"status": 1}))  # START

  def __enter__(self) -> Self:
    """Returns itself, to be closed at the end of the block."""
    return self

  def __exit__(self, *_: object) -> None:
    """Closes."""
    self.close()

  def write(self, step: int, metrics: Metrics) -> dict[str, float] | None:
    """Takes the pairs of `step`, writes those of the step before.

    Returns the means just written, for a progress bar and for `diagnose`;
    None at the first step. Steps must ascend.
    """
    if self._held is not None and step <= self._held[0]:
      raise ValueError(f"step {step} after step {self._held[0]}")
    means = self._write_held()
    self._held = (step, metrics)
    return means

  def flush(self) -> dict[str, float] | None:
    """Writes the step held back and forces the log to the disk."""
    means = self._write_held()
    if self._log is not None:
      try:
        os.fsync(self._log.fileno())
        self._events.flush()
      except OSError as error:
        raise self._failed(error) from error
    return means

  def close(self) -> None:
    """Flushes and closes both files."""
    try:
      self.flush()
    finally:
      if self._log is not None:
        self._log.close()
        self._events.close()
        self._log = None

  def _write_held(self) -> dict[str, float] | None:
    """Reads the held pairs from the device and appends their line."""
    if self._held is None:
      return None
    step, metrics = self._held
    self._held = None
    means = mean(metrics)
    if self._log is not None:
      self._append(self._log, step, means)
    return means

  def _append(self, log: BinaryIO, step: int, means: dict[str, float]) -> None:
    """Appends one line (null where not finite) and one event a name."""
    line = {k: v if math.isfinite(v) else None for k, v in means.items()}
    try:
      log.write(json.dumps({"step": step, **line}).encode() + b"\n")
      log.flush()
      for name, value in means.items():
        event = _event(step, summary=summary.scalar(name, value))
        self._events.write_event(event)
    except OSError as error:
      raise self._failed(error) from error

  def _failed(self, error: OSError) -> OSError:
    """Gives up the log, so that closing it cannot hide this error."""
    self._log = None
    text = f"metrics were not written: {error.strerror}"
    return OSError(error.errno, text, str(self._path))
