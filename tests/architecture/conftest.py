"""What the lints read: the repository's files, as text, by path."""

import pathlib
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
FLOORS = ("kernels", "research", "experiments")


@pytest.fixture(scope="session")
def repository():
  return REPOSITORY


@pytest.fixture(scope="session")
def files():
  """Relative paths of all files that git tracks, or would if asked."""
  if not (REPOSITORY / ".git").exists():
    pytest.skip("only a git checkout says which files belong to Pith")
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    cwd=REPOSITORY,
    check=True,
    capture_output=True,
    text=True,
  )
  paths = listed.stdout.strip("\0").split("\0")
  return sorted(path for path in paths if (REPOSITORY / path).is_file())


@pytest.fixture(scope="session")
def python():
  """Path to source of every Python file: the floors, the tests, setup.py."""
  paths = [REPOSITORY / "setup.py"]
  for folder in (*FLOORS, "tests"):
    paths += sorted((REPOSITORY / folder).rglob("*.py"))
  return {str(p.relative_to(REPOSITORY)): p.read_text() for p in paths}


@pytest.fixture(scope="session")
def floors(python):
  """Path to source of the Python files of the three floors."""
  return {p: s for p, s in python.items() if p.split("/")[0] in FLOORS}


@pytest.fixture(scope="session")
def sweep():
  """sweep(lint, sources): fails with every violation, one a line."""

  def run(lint, sources):
    assert sources, "nothing to read: the lint would pass on an empty house"
    found = [line for path in sources for line in lint(path, sources[path])]
    if found:
      pytest.fail("\n".join(["", *found]), pytrace=False)

  return run
