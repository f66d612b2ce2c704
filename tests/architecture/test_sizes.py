"""Files and functions stay small enough to hold in the head."""

import ast
import statistics

import pytest

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def file_limit(path):
  """Lines that a file may have."""
  return 600 if path.startswith("kernels/") else 400


def function_limit(path, name):
  """Lines that a function may have, from its `def` to its last line."""
  if path.startswith("kernels/"):
    return 120
  stage = path.startswith("experiments/stages/") and name == "run"
  return 100 if stage else 40


def functions(source):
  """Yields (name, first line, number of lines), nested functions too."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, FUNCTIONS):
      yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def size_violations(path, source):
  """Files and functions over their limit."""
  lines = len(source.splitlines())
  if lines > file_limit(path):
    yield f"{path}: {lines} lines, {file_limit(path)} at most"
  for name, line, length in functions(source):
    limit = function_limit(path, name)
    if length > limit:
      yield f"{path}:{line}: {name} has {length} lines, {limit} at most"


def test_sizes(python, sweep):
  sweep(size_violations, python)


def test_median_function(floors, capsys):
  lengths = [
    length for source in floors.values() for _, _, length in functions(source)
  ]
  median = statistics.median(lengths)
  with capsys.disabled():
    print(f"\n{len(lengths)} functions, median {median:g} lines", end="")
  assert median <= 16


def body(lines, name="f"):
  return f"def {name}():\n" + "  x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("research/x.py", "x = 1\n" * 401),
    ("kernels/x.py", "x = 1\n" * 601),
    ("research/x.py", body(41)),
    ("research/x.py", "class A:\n" + body(41).replace("def", " def", 1)),
    ("experiments/stages/x.py", body(41)),
    ("experiments/stages/x.py", body(101, "run")),
    ("kernels/x.py", body(121)),
  ],
)
def test_sizes_control(path, source):
  assert list(size_violations(path, source))


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("research/x.py", "x = 1\n" * 400),
    ("research/x.py", body(40)),
    ("kernels/x.py", body(120)),
    ("experiments/stages/x.py", body(100, "run")),
  ],
)
def test_sizes_permit(path, source):
  assert not list(size_violations(path, source))
