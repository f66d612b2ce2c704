"""What we write, read by transformers in an environment of its own."""

import pathlib
import subprocess

import numpy as np
import pytest

from research.models import huggingface

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden" / "huggingface"


@pytest.mark.slow
def test_transformers_says_the_same_of_what_we_write(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  for case in sorted(GOLDEN.iterdir()):
    config, params = huggingface.load(case)
    huggingface.save(tmp_path / case.name, config, params)
  worker = REPOSITORY / "tests" / "oracle" / "worker.py"
  subprocess.run([PYTHON, worker, "ask", tmp_path], check=True)
  for case in sorted(GOLDEN.iterdir()):
    expected = np.load(case / "said.npz")
    said = np.load(tmp_path / case.name / "said.npz")
    assert set(said) == set(expected)
    for name in expected:
      np.testing.assert_allclose(
        said[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name
      )
