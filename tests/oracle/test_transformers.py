"""What we write, read by transformers in an environment of its own."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from research.models import huggingface, lora, peft

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden" / "huggingface"
ADAPTERS = REPOSITORY / "tests" / "golden" / "peft"


def ask(folder):
  worker = REPOSITORY / "tests" / "oracle" / "worker.py"
  subprocess.run([PYTHON, worker, "ask", folder], check=True)


@pytest.mark.slow
def test_transformers_says_the_same_of_what_we_write(tmp_path):
  """To the bit, on one machine; the committed answers are another's."""
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  ours, theirs = tmp_path / "ours", tmp_path / "theirs"
  shutil.copytree(GOLDEN, theirs)
  for case in sorted(GOLDEN.iterdir()):
    config, params = huggingface.load(case)
    huggingface.save(ours / case.name, config, params)
  ask(ours)
  ask(theirs)
  for case in sorted(GOLDEN.iterdir()):
    expected = np.load(theirs / case.name / "said.npz")
    said = np.load(ours / case.name / "said.npz")
    assert set(said) == set(expected) == set(np.load(case / "said.npz"))
    for name in expected:
      np.testing.assert_array_equal(said[name], expected[name], err_msg=name)


@pytest.mark.slow
def test_merged_adapters_say_in_transformers_what_peft_says(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  cases = sorted(path.name for path in ADAPTERS.iterdir())
  for case in cases:
    plain, base = huggingface.load(GOLDEN / case)
    adapted, adapters = peft.load(ADAPTERS / case, plain)
    merged = lora.merge(adapted, lora.join(base, adapters))
    huggingface.save(tmp_path / case, *merged)
  ask(tmp_path)
  for case in cases:
    expected = np.load(ADAPTERS / case / "said.npz")["logits"]
    said = np.load(tmp_path / case / "said.npz")["logits"]
    gap = np.abs(said - expected).max()
    assert gap <= 1e-5 * np.ptp(expected), case
    unmerged = np.load(GOLDEN / case / "said.npz")["logits"]
    assert np.abs(unmerged - expected).max() > 0.01 * np.ptp(expected)
