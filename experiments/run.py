"""Runs the stages of a config, and goes on where they stopped.

python -m experiments.run --config=experiments/configs/NAME.py[:arg] \
    --workdir=DIR [--config.a.b=value] [--dry_run]
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import importlib.metadata
import json
import logging
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_dict, config_flags
from rich.console import Console

from experiments import settings
from experiments.resolve import resolve
from research import sharding
from research.evaluation import report, summary
from research.training.metrics import replace_file

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The recipe: a file and, behind a colon, its argument."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.")
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Check the config, say what would run, and stop."
)

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
console = Console()


class Mistake(Exception):
  """Something that the user can mend; it is told in one line."""


def _commit() -> str:
  """Returns the commit of this code, "+" behind it where files differ."""
  here = pathlib.Path(__file__).parent
  git = lambda *args: subprocess.run(
    ["git", *args], cwd=here, capture_output=True, text=True, check=False
  )
  head = git("rev-parse", "--short", "HEAD")
  if head.returncode:
    return "unknown"
  dirty = git("status", "--porcelain", "--untracked-files=no").stdout
  return head.stdout.strip() + ("+" if dirty else "")


def _changes(old: Any, new: Any, where: str = "") -> list[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    names = sorted(set(old) | set(new))
    lines = [
      _changes(old.get(n), new.get(n), f"{where}.{n}" if where else n)
      for n in names
    ]
    return [line for part in lines for line in part]
  return [] if old == new else [f"{where}: {old!r} is now {new!r}"]


def _record_config(
  config: dict[str, Any], stages: dict[str, Any], workdir: pathlib.Path
) -> None:
  """Writes config.json, or compares with the one that is there.

  `resolved` is what the config comes to with all defaults filled in: a default
  that the code has changed since is another run, too.

  Raises:
    Mistake: the workdir holds a run of another config.
  """
  path = workdir / "config.json"
  filled = {name: dataclasses.asdict(cfg) for name, (_, cfg) in stages.items()}
  filled = json.loads(json.dumps(filled))
  if path.exists():
    before = json.loads(path.read_text())
    changed = _changes(before["config"], config)
    if changed := changed or _changes(before["resolved"], filled):
      raise Mistake(
        f"{workdir} holds a run of another config ({'; '.join(changed[:5])}): "
        "use another --workdir, or remove this one"
      )
    return
  versions = {p: importlib.metadata.version(p) for p in PACKAGES}
  about = {
    "config": config,
    "resolved": filled,
    "commit": _commit(),
    "versions": versions,
    "device": jax.devices()[0].device_kind,
    "started": datetime.datetime.now(datetime.UTC).isoformat(),
  }
  replace_file(path, json.dumps(about, indent=2).encode())


@contextlib.contextmanager
def _claimed(workdir: pathlib.Path) -> Iterator[None]:
  """Makes the workdir and holds it: two runs in one would mix."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / ".lock").open("w")
  except OSError as error:
    raise Mistake(
      f"--workdir={workdir} cannot be written ({error.strerror}): choose "
      "another"
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise Mistake(f"another run is using --workdir={workdir}") from error
    yield


def plan(config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns (module, its Config) of each stage, in order.

  Raises:
    ValueError: something in the config is unknown, missing or of a wrong type.
  """
  shared = ("seed", "tokenizer", "model", "mesh")
  if absent := [name for name in (*shared, "stages") if name not in config]:
    raise ValueError(f"config.{absent[0]} is missing")
  known = {*shared, "data_dir", "stages", *config["stages"]}
  if unknown := sorted(set(config) - known):
    raise ValueError(f"config.{unknown[0]} is unknown and no stage's name")
  given = {name: config[name] for name in shared}
  run = settings.build(settings.Run, given)
  settings.load_tokenizer(run)
  stages = {}
  for name in config["stages"]:
    if name not in config:
      raise ValueError(f"config.{name}, a stage of config.stages, is missing")
    values = dict(config[name])
    if "stage" not in values:
      raise ValueError(f"config.{name}.stage is missing: a module's address")
    stages[name] = _stage(name, values, run, list(stages))
  if not stages:
    raise ValueError("config.stages is empty: nothing would run")
  return stages


def _stage(
  name: str, values: dict[str, Any], run: settings.Run, before: list[str]
) -> tuple[Any, Any]:
  address = values.pop("stage")
  module = resolve(address)
  if not (hasattr(module, "Config") and hasattr(module, "run")):
    raise ValueError(
      f"config.{name}.stage: {address!r} is no stage, which has Config and run"
    )
  built = settings.build(module.Config, values | {"run": run}, name)
  for leaf in jax.tree.leaves(dataclasses.asdict(built)):
    if isinstance(leaf, settings.Stage) and leaf not in before:
      raise ValueError(
        f"config.{name} speaks of the stage {leaf!r}, which does not run "
        f"before it; there are {before}"
      )
  return module, built


def _load(workdir: pathlib.Path, name: str) -> dict[str, Any] | None:
  path = workdir / name / "done.json"
  return json.loads(path.read_text()) if path.exists() else None


def execute(
  stages: dict[str, tuple[Any, Any]], workdir: pathlib.Path
) -> dict[str, Any]:
  """Runs what is not finished; returns the outputs of all stages, by name."""
  done: dict[str, Any] = {}
  for name, (module, cfg) in stages.items():
    folder = workdir / name
    folder.mkdir(exist_ok=True)
    outputs = _load(workdir, name)
    if outputs is None:
      start = time.monotonic()
      outputs = module.run(cfg, dict(done), folder)
      # of this attempt: what a killed one had spent is not known
      spent = {"seconds": time.monotonic() - start}
      replace_file(folder / "seconds.json", json.dumps(spent).encode())
      replace_file(folder / "done.json", json.dumps(outputs).encode())
    else:
      console.print(f"[bold]{name:>12}[/bold] done before")
    done[name] = {"folder": str(folder), **outputs}
  return done


def finish(
  config: dict[str, Any], workdir: pathlib.Path, done: dict[str, Any]
) -> None:
  """Writes summary.json and report.html, and shows the table."""
  merged = {}
  for outputs in done.values():
    merged |= outputs.get("summary", {})
  replace_file(workdir / "summary.json", json.dumps(merged, indent=2).encode())
  about = json.loads((workdir / "config.json").read_text())
  path = report.write(
    workdir / "report.html",
    workdir,
    title=workdir.name,
    config=config,
    commit=about["commit"],
    seeds=[config["seed"]],
    order=list(done),
  )
  if summary.rows(merged):
    console.print(summary.table(merged))
  console.print(f"report: {path}")


def _describe(
  config: dict[str, Any], stages: dict[str, Any], workdir: pathlib.Path
) -> None:
  """Shows what would run, and where it stands; writes nothing."""
  console.print_json(json.dumps(config))
  run = next(iter(stages.values()))[1].run
  console.print(settings.describe(run))
  for name, (module, _) in stages.items():
    state = "to do" if _load(workdir, name) is None else "done"
    console.print(f"  {name}: {module.__name__}, {state}")


@contextlib.contextmanager
def _traced(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps an error's trace in error.log, for the terminal gets one line.

  Raises:
    Mistake: the line says where, unless the error speaks for itself.
  """
  try:
    yield
  except Mistake:
    raise
  except Exception as error:
    if getattr(error, "errno", None) == errno.ENOSPC:
      raise Mistake(
        f"the disk that holds {workdir} is full: {error}. Make room and give "
        "the same command again"
      ) from error
    path = workdir / "error.log"
    with path.open("a") as log:
      log.write(traceback.format_exc())
    if isinstance(error, OSError | FloatingPointError):
      raise
    line = str(error)
    if not isinstance(error, ValueError):
      line = f"{type(error).__name__}: {error}"
    raise Mistake(f"{line} (its trace is in {path})") from error


def _quieten() -> None:
  """Leaves standard error to what a user can act on."""
  logging.getLogger().setLevel(logging.WARNING)
  # It warns of each number that is not finite; the loop stops at the first.
  logging.getLogger("tensorboardX").setLevel(logging.ERROR)

  # Of orbax' writes to a full disk the first that fails is raised; the others
  # that it gave up would follow it, one by asyncio's log, one by no loop.
  logging.getLogger("asyncio").addFilter(
    lambda record: "exception was never retrieved" not in record.getMessage()
  )

  def tell(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      sys.__unraisablehook__(unraisable)

  sys.unraisablehook = tell


def main(argv: list[str]) -> None:
  """Runs the config; whatever goes wrong costs one line and exit code 1."""
  if len(argv) > 1:
    sys.exit(f"error: {argv[1]!r} is no flag; configs are set by --config.a=b")
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
  _quieten()
  workdir = pathlib.Path(str(_WORKDIR.value))
  try:
    config = config_dict.ConfigDict(_CONFIG.value).to_dict()
    config = json.loads(
      json.dumps(config, default=config_dict.ConfigDict.to_dict)
    )
    stages = plan(config)
    if _DRY_RUN.value:
      return _describe(config, stages, workdir)
    if jax.process_count() > 1:
      sys.exit("error: one process only; runs over several hosts are to come")
    mesh = next(iter(stages.values()))[1].run.mesh
    sharding.make_mesh(**dataclasses.asdict(mesh))  # too large fails here
    with _claimed(workdir), _traced(workdir):
      _record_config(config, stages, workdir)
      finish(config, workdir, execute(stages, workdir))
  except (Mistake, ValueError, OSError, FloatingPointError) as error:
    sys.exit(f"error: {' '.join(str(error).split())}")


def parse(argv: list[str]) -> list[str]:
  """Parses flags; a config that cannot be read costs one line, not a trace."""
  try:
    rest = flags.FLAGS(argv)
    for name in ("config", "workdir"):
      if flags.FLAGS[name].value is None:
        sys.exit(f"error: --{name} is missing: {flags.FLAGS[name].help}")
    config_dict.ConfigDict(_CONFIG.value)  # raises where it was not read
  except (KeyError, AttributeError) as error:
    told = " ".join(str(error.args[0]).split())
    sys.exit(f"error: the config has no such field: {told}")
  except (flags.Error, OSError, TypeError, ValueError) as error:
    sys.exit(f"error: {str(error).splitlines()[-1].strip()}")
  return rest


if __name__ == "__main__":
  app.run(main, flags_parser=parse)
