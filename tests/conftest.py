"""Test set-up: strict jax on eight fake CPU devices, golden numbers, data."""

import json
import os
import pathlib

import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

# jax reads these when it is first imported; child processes inherit them. The
# collectives of eight fake devices may wait long for one of two busy cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_DEBUG_KEY_REUSE"] = "true"
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
  ]
)
# What was compiled once is read back, bit for bit the same, by other workers,
# child processes and later runs.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def pytest_addoption(parser):
  parser.addoption(
    "--golden",
    action="store_true",
    help="run the golden tests only, and rewrite their numbers",
  )


def pytest_configure(config):
  from absl import flags
  from hypothesis import settings

  # grain asks absl's flags for values, also outside of absl's app.run.
  flags.FLAGS.mark_as_parsed()
  # One jit compilation may outlast hypothesis's deadline of 0.2 s.
  settings.register_profile("pith", deadline=None, derandomize=True)
  settings.load_profile("pith")


def pytest_collection_modifyitems(config, items):
  if config.getoption("--golden"):
    items[:] = [item for item in items if "golden" in item.fixturenames]


def compare(name, value, expected, rtol):
  """Raises AssertionError where `value` leaves what was recorded."""
  __tracebackhide__ = True
  remedy = (
    f"{name} differs from tests/golden/{name}.json. If the change is meant,"
    " run `make golden` and explain the new numbers in the commit."
  )
  if isinstance(expected, dict):
    assert sorted(value) == sorted(expected), remedy
    for key in expected:
      compare(f"{name}/{key}", value[key], expected[key], rtol)
  elif np.asarray(expected).dtype.kind == "f":
    np.testing.assert_allclose(value, expected, rtol=rtol, err_msg=remedy)
  else:
    np.testing.assert_array_equal(value, expected, err_msg=remedy)


@pytest.fixture
def golden(request):
  """golden(name, value, rtol): `value` against tests/golden/NAME.json.

  `value` is a number, a string, an array, or a dict of these. Floats are
  compared within `rtol`, all else exactly.
  """

  def check(name, value, rtol=1e-5):
    path = GOLDEN / f"{name}.json"
    plain = json.loads(
      json.dumps(value, default=lambda x: np.asarray(x).tolist())
    )
    if request.config.getoption("--golden"):
      GOLDEN.mkdir(exist_ok=True)
      path.write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
      return
    if not path.exists():
      pytest.fail(f"no tests/golden/{name}.json yet: run `make golden`")
    compare(name, plain, json.loads(path.read_text()), rtol)

  return check


@pytest.fixture
def data_dir():
  """The folder of real data: $PITH_DATA, or ../shared/data where it exists."""
  path = pathlib.Path(os.environ.get("PITH_DATA", SHARED_DATA))
  if not path.is_dir():
    pytest.skip(f"no data at {path}: set PITH_DATA")
  return path
