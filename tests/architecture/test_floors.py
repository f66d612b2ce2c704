"""Imports go down only, and plug-ins do not know of one another."""

import ast
import subprocess
import sys

import pytest

STANDARD = set(sys.stdlib_module_names)
PLUGINS = (
  "losses",
  "algorithms",
  "preferences",
  "reward_models",
  "environments",
  "tasks",
  "search",
)


def imported(path, source):
  """Yields (line, dotted address) for each import, wherever it stands.

  `from a import b` yields `a.b`, for b may be a module. The text given to
  `import_module` counts as well.
  """
  package = path.removesuffix(".py").split("/")[:-1]
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      above = package[: len(package) - node.level + 1] if node.level else []
      stem = ".".join([*above, *([node.module] if node.module else [])])
      yield from ((node.lineno, f"{stem}.{a.name}") for a in node.names)
    elif isinstance(node, ast.Call) and "import_module" in ast.unparse(
      node.func
    ):
      for argument in node.args[:1]:
        if isinstance(argument, ast.Constant):
          yield node.lineno, argument.value


def floor_violations(path, source):
  """Imports that go up, or leave what the floor may see."""
  floor = path.split("/")[0]
  for line, address in imported(path, source):
    top = address.split(".")[0]
    if floor == "kernels":
      allowed = top in STANDARD | {"jax", "numpy", "kernels"}
    elif floor == "research":
      allowed = top not in {
        "absl", "ml_collections", "experiments", "tests", "torch", "tensorflow",
      }  # fmt: skip
    else:
      allowed = top != "tests"
    if not allowed:
      yield f"{path}:{line}: {floor} may not import {address}"


def plugin_violations(path, source):
  """Imports of one plug-in by another.

  What two plug-ins share lives in another room, or beside them in a file whose
  name begins with an underscore; such a file is no plug-in.
  """
  room = path.split("/")[1]
  if path.split("/")[0] != "research" or room not in PLUGINS:
    return
  for line, address in imported(path, source):
    parts = [*address.split("."), "", ""]
    plugin = parts[0] == "research" and parts[1] in PLUGINS
    if plugin and not parts[2].startswith("_"):
      yield f"{path}:{line}: a plug-in imports the plug-in {address}"


def test_floors(floors, sweep):
  sweep(floor_violations, floors)


def test_plugins(floors, sweep):
  sweep(plugin_violations, floors)


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("kernels/x.py", "import flax.linen as nn"),
    ("kernels/x.py", "from research import types"),
    ("kernels/x.py", "def f():\n  import flax"),
    ("research/x.py", "from absl import flags"),
    ("research/x.py", "import ml_collections.config_dict"),
    ("research/x/y.py", "from ...experiments import run"),
    ("research/x.py", "importlib.import_module('experiments.run')"),
    ("research/x.py", "import torch"),
    ("experiments/x.py", "from tests import y"),
  ],
)
def test_floors_control(path, source):
  assert list(floor_violations(path, source))


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("kernels/x.py", "import functools\nfrom jax.experimental import pallas"),
    ("kernels/x.py", "from . import reference\nfrom kernels import vocab"),
    ("research/x.py", "import flax\nfrom kernels import vocab"),
    ("experiments/x.py", "from absl import flags\nfrom research import types"),
  ],
)
def test_floors_permit(path, source):
  assert not list(floor_violations(path, source))


@pytest.mark.parametrize(
  "source",
  [
    "from research.losses import forward_kl",
    "from research.losses.forward_kl import loss",
    "from . import forward_kl",
    "import research.algorithms.grpo",
  ],
)
def test_plugins_control(source):
  assert list(plugin_violations("research/losses/x.py", source))


def test_plugins_permit():
  source = "from research import types\nfrom research.losses import _divergence"
  assert not list(plugin_violations("research/losses/x.py", source))


def test_import_makes_nothing(floors, repository):
  """The lower floors import without a device, a mesh or a flag made."""
  modules = [
    path.removesuffix(".py").replace("/", ".")
    for path in floors
    if not path.startswith("experiments") and "__init__" not in path
  ]
  program = """
import importlib, sys
from jax._src import xla_bridge
for name in sys.argv[1:]:
  importlib.import_module(name)
  if xla_bridge.backends_are_initialized():
    sys.exit(f"importing {name} starts a device")
"""
  done = subprocess.run(
    [sys.executable, "-c", program, *modules],
    cwd=repository,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
