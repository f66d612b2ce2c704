"""Our templates, rendered anew by transformers in an environment of its own."""

import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden" / "templates"


@pytest.mark.slow
def test_transformers_still_says_what_is_kept(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
  kept = {path: path.read_text() for path in tmp_path.glob("*/said.json")}
  assert len(kept) == 5
  for path in kept:
    path.unlink()
  worker = REPOSITORY / "tests" / "oracle" / "templates_worker.py"
  subprocess.run([PYTHON, worker, "ask", tmp_path], check=True)
  for path, said in kept.items():
    assert path.read_text() == said, path.parent.name
