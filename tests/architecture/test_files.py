"""What a file of the repository may not hold, and where its test lives."""

import pathlib
import re

import pytest

LARGEST = 1_000_000
# Written so that the patterns do not match themselves.
FOREIGN = [
  (re.compile(r"(?<![\w.])/(?:work|root|workspace)/"), "a machine's path"),
  (re.compile(r"(?<![\w.])/(?:home|Users)/\w"), "a person's path"),
  (re.compile(r"--(?:extra-)?index[-]url|--find[-]links"), "a package index"),
  (
    re.compile(r"://[\w.-]*(?:py[p]i|pythonhoste[d]|npmj[s])"),
    "a package index",
  ),
]


def foreign_violations(path, source):
  """Text that speaks of one machine, or of where packages come from."""
  for number, line in enumerate(source.splitlines(), 1):
    for pattern, meaning in FOREIGN:
      if pattern.search(line):
        yield f"{path}:{number}: {meaning}: {line.strip()[:60]}"


def ending_violations(path, source):
  """Files that do not end with one newline."""
  if source and (not source.endswith("\n") or source.endswith("\n\n")):
    yield f"{path}: must end with one newline"


def mirror_violations(paths):
  """Test folders of a room that is not there."""
  folders = {str(parent) for p in paths for parent in pathlib.Path(p).parents}
  for folder in sorted(folders):
    room = folder.removeprefix("tests/")
    floor = room.split("/")[0] in ("kernels", "research", "experiments")
    if folder.startswith("tests/") and floor and room not in folders:
      yield f"{folder}: there is no {room}"


def package_violations(paths):
  """Folders of code without __init__.py, folders of tests with one."""
  for folder in sorted({str(pathlib.Path(p).parent) for p in paths}):
    marked = f"{folder}/__init__.py" in paths
    if folder.startswith("tests") and marked:
      yield f"{folder}: tests are no package"
    code = folder.split("/")[0] in ("kernels", "research", "experiments")
    if (
      code
      and not marked
      and any(
        p.endswith(".py") and str(pathlib.Path(p).parent) == folder
        for p in paths
      )
    ):
      yield f"{folder}: an __init__.py makes it part of the installed package"


@pytest.fixture(scope="module")
def texts(files, repository):
  held = {path: (repository / path).read_bytes() for path in files}
  return {path: x.decode() for path, x in held.items() if b"\0" not in x}


def test_foreign(texts, sweep):
  sweep(foreign_violations, texts)


def test_endings(texts, sweep):
  sweep(ending_violations, texts)


def test_large_files(files, repository):
  sizes = {path: (repository / path).stat().st_size for path in files}
  assert not {p: size for p, size in sizes.items() if size > LARGEST}


def test_mirror(files):
  assert not list(mirror_violations(files))


def test_packages(files):
  assert not list(package_violations(files))


@pytest.mark.parametrize(
  ("lint", "source"),
  [
    (foreign_violations, "cd /wo" + "rk/main"),
    (foreign_violations, "'/ro" + "ot/x'"),
    (foreign_violations, "/ho" + "me/someone/data"),
    (foreign_violations, "pip install --index-" + "url=x"),
    (foreign_violations, "https://py" + "pi.org/project/x"),
    (ending_violations, "x"),
    (ending_violations, "x\n\n"),
  ],
)
def test_control(lint, source):
  assert list(lint("x.md", source))


def test_permits():
  assert not list(
    foreign_violations("x.md", "../shared/data, a/work/b, runs/x")
  )
  assert not list(ending_violations("x.md", "x\n"))


def test_mirror_control():
  assert list(mirror_violations(["tests/research/x/test_y.py"]))
  there = ["research/x/y.py", "tests/research/x/test_y.py"]
  assert not list(mirror_violations(there))


def test_packages_control():
  assert list(package_violations(["research/x/y.py"]))
  assert list(package_violations(["tests/x/__init__.py"]))
  there = ["research/x/y.py", "research/x/__init__.py", "tests/x/test_y.py"]
  assert not list(package_violations(there))
