"""Adapters that we write, read by peft in an environment of its own."""

import pathlib
import subprocess

import numpy as np
import pytest

from research.models import huggingface, peft

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden"


@pytest.mark.slow
def test_peft_says_the_same_of_what_we_write(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  cases = sorted(path.name for path in (GOLDEN / "peft").iterdir())
  for case in cases:
    plain, _ = huggingface.load(GOLDEN / "huggingface" / case)
    config, adapters = peft.load(GOLDEN / "peft" / case, plain)
    peft.save(tmp_path / case, config, adapters, base_name=case)
  worker = REPOSITORY / "tests" / "oracle" / "peft_worker.py"
  subprocess.run([PYTHON, worker, "ask", tmp_path], check=True)
  for case in cases:
    said = np.load(tmp_path / case / "said.npz")["logits"]
    expected = np.load(GOLDEN / "peft" / case / "said.npz")["logits"]
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-6)
