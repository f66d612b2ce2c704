"""What Pith does without: grab-bags, managers, hidden defaults, lost errors."""

import ast
import re
import subprocess
import sys

import pytest

GRAB_BAGS = {"utils", "util", "common", "base", "helpers", "misc"}
CLASS = re.compile("Trainer|Manager|Learner|Registry")
CONFIG = re.compile(r"^(\w*_)?(config|cfg|conf)$")
NOTE = re.compile(r"#.*\b(TODO|FIXME|XXX)\b(?!.*\b(until|blocked by)\b)")


def name_violations(path, source):
  """Files and classes whose name says nothing, or too much."""
  stem = path.split("/")[-1].removesuffix(".py")
  if stem in GRAB_BAGS:
    yield f"{path}: name the file after what it holds"
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ClassDef) and CLASS.search(node.name):
      yield f"{path}:{node.lineno}: {node.name}: functions over pytrees instead"


def default_violations(path, source):
  """`config.get(...)` and `getattr(config, name, default)`."""
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Call):
      continue
    called = node.func
    method = isinstance(called, ast.Attribute) and called.attr == "get"
    function = getattr(called, "id", "") == "getattr" and len(node.args) == 3
    owner = called.value if method else node.args[0] if function else None
    last = ast.unparse(owner).split(".")[-1] if owner else ""
    if CONFIG.match(last):
      yield f"{path}:{node.lineno}: a default hidden at the place of use"


def dropped_error_violations(path, source):
  """Handlers that catch everything or do nothing."""
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.ExceptHandler):
      continue
    kept = [
      x
      for x in node.body
      if not isinstance(x, ast.Pass | ast.Continue)
      and not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))
    ]
    if node.type is None:
      yield f"{path}:{node.lineno}: bare except"
    elif not kept:
      yield f"{path}:{node.lineno}: an error is caught and dropped"


def evaluation_violations(path, source):
  """Calls of eval and exec: text is parsed, never run."""
  for node in ast.walk(ast.parse(source)):
    name = getattr(node, "func", None) and getattr(node.func, "id", "")
    if name in ("eval", "exec"):
      yield f"{path}:{node.lineno}: {name} of text"


def note_violations(path, source):
  """TODO notes that do not say what they wait for."""
  for number, line in enumerate(source.splitlines(), 1):
    if NOTE.search(line):
      yield f"{path}:{number}: say `until ...` or `blocked by ...`, or do it"


def test_names(python, sweep):
  sweep(name_violations, python)


def test_hidden_defaults(floors, sweep):
  sweep(default_violations, floors)


def test_dropped_errors(python, sweep):
  sweep(dropped_error_violations, python)


def test_evaluation(python, sweep):
  sweep(evaluation_violations, python)


def test_notes(python, sweep):
  sweep(note_violations, python)


@pytest.mark.parametrize(
  ("lint", "path", "source"),
  [
    (name_violations, "research/utils.py", ""),
    (name_violations, "research/x/common.py", ""),
    (name_violations, "x.py", "class StudentTrainer: pass"),
    (name_violations, "x.py", "class RunManager: pass"),
    (default_violations, "x.py", "config.get('a', 1)"),
    (default_violations, "x.py", "self.model_config.get('a')"),
    (default_violations, "x.py", "getattr(cfg, 'a', 1)"),
    (dropped_error_violations, "x.py", "try:\n  f()\nexcept:\n  g()"),
    (dropped_error_violations, "x.py", "try:\n  f()\nexcept E:\n  pass"),
    (dropped_error_violations, "x.py", "try:\n  f()\nexcept E:\n  ..."),
    (evaluation_violations, "x.py", "eval('1')"),
    (evaluation_violations, "x.py", "exec('1')"),
    (note_violations, "x.py", "x = 1  # TO" + "DO: faster"),
    (note_violations, "x.py", "# FIX" + "ME"),
  ],
)
def test_control(lint, path, source):
  assert list(lint(path, source))


@pytest.mark.parametrize(
  ("lint", "source"),
  [
    (default_violations, "problem.meta.get('a', 1)"),
    (default_violations, "getattr(config, 'a')"),
    (dropped_error_violations, "try:\n  f()\nexcept E:\n  return None"),
    (evaluation_violations, "ast.literal_eval('1')\nmodel.eval()"),
    (note_violations, "# TO" + "DO: drop this until jax 0.12 is out"),
  ],
)
def test_permits(lint, source):
  assert not list(lint("x.py", source))


@pytest.mark.parametrize(
  ("rule", "source"),
  [
    ("D100", "x = 1\n"),
    ("D101", '"""A."""\n\n\nclass A:\n  x = 1\n'),
    (
      "D102",
      '"""A."""\n\n\nclass A:\n  """A."""\n\n  def f(self):\n    return 1\n',
    ),
    ("D103", '"""A."""\n\n\ndef f():\n  return 1\n'),
    ("S307", '"""A."""\n\nx = eval("1")\n'),
    ("S301", '"""A."""\n\nimport pickle\n\nx = pickle.loads(b"")\n'),
  ],
)
def test_ruff_control(rule, source, repository):
  """What ruff is relied on for, public docstrings first, it does notice."""
  done = subprocess.run(
    [sys.executable, "-m", "ruff", "check", "--no-cache",
     "--output-format=concise", "--stdin-filename=research/planted.py", "-"],
    cwd=repository,
    input=source,
    capture_output=True,
    text=True,
  )  # fmt: skip
  assert done.returncode == 1
  assert rule in done.stdout
