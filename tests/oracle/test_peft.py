"""Adapters that we write, read by peft in an environment of its own."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from research.models import huggingface, peft

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden"


@pytest.mark.slow
def test_peft_says_the_same_of_what_we_write(tmp_path):
  """To the bit, on one machine; the committed answers are another's."""
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  ours, theirs = tmp_path / "ours", tmp_path / "theirs"
  shutil.copytree(GOLDEN / "peft", theirs)
  cases = sorted(path.name for path in (GOLDEN / "peft").iterdir())
  for case in cases:
    plain, _ = huggingface.load(GOLDEN / "huggingface" / case)
    config, adapters = peft.load(GOLDEN / "peft" / case, plain)
    peft.save(ours / case, config, adapters, base_name=case)
  worker = REPOSITORY / "tests" / "oracle" / "peft_worker.py"
  for folder in (ours, theirs):
    subprocess.run([PYTHON, worker, "ask", folder], check=True)
  for case in cases:
    said, expected = (
      np.load(folder / case / "said.npz")["logits"] for folder in (ours, theirs)
    )
    np.testing.assert_array_equal(said, expected, err_msg=case)
