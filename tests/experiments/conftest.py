"""The program as the tests of experiments/ start it: the command, or here."""

import fcntl
import itertools
import logging
import os
import pathlib
import signal
import subprocess
import sys

import jax
import pytest
from absl import flags as absl_flags
from jax.experimental.compilation_cache import compilation_cache

from experiments import run

REPOSITORY = pathlib.Path(__file__).parents[2]
TINY = "tests/experiments/tiny.py"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
  """A folder of compiled programs that all processes of the session share."""
  base = tmp_path_factory.getbasetemp()
  shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
  folder = shared / "compiled"
  folder.mkdir(exist_ok=True)
  return folder


@pytest.fixture(scope="session")
def start(compiled):
  """start(workdir, *flags, config): begins the command, as a user would.

  Programs are compiled in a hurry, for they are small, unless `optimised`.
  """
  hurry = "--xla_backend_optimization_level=0"
  hurry += " --xla_llvm_disable_expensive_passes=true"
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(compiled),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  }

  def begin(workdir, *flags, config=TINY, optimised=False):
    command = [sys.executable, "-m", "experiments.run", f"--config={config}"]
    return subprocess.Popen(
      [*command, f"--workdir={workdir}", *flags],
      cwd=REPOSITORY,
      env=environment | {"XLA_FLAGS": "" if optimised else hurry},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return begin


@pytest.fixture(scope="session")
def finish(start):
  """finish(workdir, *flags): the whole command; (exit code, stdout, stderr)."""

  def whole(*args, **kwargs):
    with start(*args, **kwargs) as process:
      out, err = process.communicate(timeout=600)
    return process.returncode, out, err

  return whole


@pytest.fixture(scope="session")
def unbroken(finish, compiled):
  """The workdir of a run that nobody disturbed, one for all processes."""
  workdir = compiled.parent / "unbroken"
  with (compiled.parent / "unbroken.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (workdir / "report.html").exists():
      code, _, err = finish(workdir)
      assert code == 0, err
  return workdir


@pytest.fixture
def recipe(tmp_path):
  """recipe(arg, {"a.b": value}): a config file, the tiny one with changes."""
  numbers = itertools.count()

  def write(arg, changes):
    lines = [
      f"  c['{name.replace('.', "']['")}'] = {value!r}\n"
      for name, value in changes.items()
    ]
    path = tmp_path / f"recipe{next(numbers)}.py"
    path.write_text(
      "from ml_collections import ConfigDict\n"
      "from tests.experiments import tiny\n\n\n"
      "def get_config():\n"
      f"  c = tiny.get_config({arg!r}).to_dict()\n"
      f"{''.join(lines)}"
      "  return ConfigDict(c)\n"
    )
    return path

  return write


@pytest.fixture(scope="module")
def cached(compiled):
  """Lets this process read and keep compiled programs there."""
  names = {
    "jax_compilation_cache_dir": str(compiled),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def forget_flags():
  """Undoes what parsing did; flags of libraries stay, they come but once."""
  known = absl_flags.FLAGS
  for name in [name for name in known if name.startswith("config.")]:
    delattr(known, name)
  for name in ("config", "workdir", "dry_run"):
    known[name].unparse()
  known.mark_as_parsed()


@pytest.fixture
def here(cached, monkeypatch):
  """here(workdir, *flags, config): the command in this process, its exit code.

  The code is None or 0 for a run that ended well, else what it tells on
  standard error, as `sys.exit` takes it.
  """
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setattr(sys, "argv", [])
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  handler = signal.getsignal(signal.SIGTERM)
  level = logging.getLogger().level

  def whole(workdir, *flags, config=TINY):
    flags = (f"--config={config}", f"--workdir={workdir}", *flags)
    sys.argv[:] = ["run", *(f for f in flags if not f.endswith("=None"))]
    try:
      run.main(run.parse(sys.argv))
    except SystemExit as end:
      return end.code
    finally:
      forget_flags()

  yield whole
  signal.signal(signal.SIGTERM, handler)
  logging.getLogger().setLevel(level)
