"""What is installed: pinned, light, and at peace with its neighbours."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys

import pytest

FRAMEWORKS = {"torch", "tensorflow", "tensorflow-cpu", "tf-nightly"}
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)$")


def normal(name):
  """The one spelling of a distribution's name."""
  return re.sub(r"[-_.]+", "-", name).lower()


def pin_violations(path, source):
  """Lines of constraints.txt that are not one sorted `name==version`."""
  lines = source.splitlines()
  for number, line in enumerate(lines, 1):
    match = PIN.match(line)
    if not match:
      yield f"{path}:{number}: not name==version: {line}"
    elif normal(match[1]) in FRAMEWORKS:
      yield f"{path}:{number}: {match[1]} has an environment of its own"
  if lines != sorted(lines, key=str.lower):
    yield f"{path}: not sorted"


def read_pins(source):
  matches = [PIN.match(line) for line in source.splitlines()]
  return {normal(m[1]): m[2] for m in matches if m}


def installed():
  distributions = importlib.metadata.distributions()
  return {normal(d.metadata["Name"]): d.version for d in distributions}


@pytest.fixture(scope="module")
def constraints(repository):
  return (repository / "constraints.txt").read_text()


def test_pins(constraints, sweep):
  sweep(pin_violations, {"constraints.txt": constraints})


def test_installed_as_pinned(constraints):
  pins, found = read_pins(constraints), installed()
  assert found["jax"] == pins["jax"]
  for name in pins.keys() & found.keys():
    assert found[name] == pins[name], f"{name}: run `make install`"


def test_every_requirement_is_pinned(constraints):
  """Whatever Pith needs here, its needs' needs included, has its pin."""
  pins, found = read_pins(constraints), installed()
  if "pith" not in found:
    pytest.skip("Pith itself is not installed: run `make install`")
  extras = importlib.metadata.metadata("pith").get_all("Provides-Extra")
  assert set(extras or ()) >= {"tpu", "cuda", "hf", "serve", "edge", "dev"}
  waiting, seen = ["pith"], set()
  while waiting:
    name = waiting.pop()
    if name in seen or name not in found:
      continue
    seen.add(name)
    lines = importlib.metadata.requires(name) or []
    if name != "pith":
      lines = [line for line in lines if "extra ==" not in line]
    waiting += [normal(re.match(r"[\w.-]+", line)[0]) for line in lines]
  assert sorted(seen - pins.keys() - {"pith", "pip"}) == []


def test_no_second_framework():
  assert not FRAMEWORKS & installed().keys()


def test_kernels_version():
  """The version that transformers 5 sees when it looks for its `kernels`."""
  kernels = importlib.import_module("kernels")
  assert kernels.__version__ == "0.0.0"


def test_pith_version():
  if "pith" not in installed():
    pytest.skip("Pith itself is not installed: run `make install`")
  major, minor = map(int, importlib.metadata.version("pith").split(".")[:2])
  assert (major, minor) < (0, 10)


@pytest.mark.skipif(
  importlib.util.find_spec("transformers") is None,
  reason="transformers is not installed",
)
def test_transformers_beside_ours(repository):
  program = (
    "import kernels, transformers; from transformers import AutoConfig,"
    " PreTrainedModel; from transformers.models.qwen2 import Qwen2Config;"
    " print(Qwen2Config().num_hidden_layers)"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=repository,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  "source",
  ["jax", "jax>=0.11\n", "jax==0.11.2 # why", "b==1\na==1", "torch==2.13.0",
   "a @ https://x/y.whl"],
)  # fmt: skip
def test_pins_control(source):
  assert list(pin_violations("constraints.txt", source))


def test_pins_permit():
  assert not list(pin_violations("c.txt", "absl-py==2.5.1\nJinja2==3.1.6\n"))
