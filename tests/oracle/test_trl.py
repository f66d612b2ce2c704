"""What TRL said of losses, asked anew in an environment of its own."""

import json
import pathlib
import subprocess

import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden"


@pytest.mark.slow
def test_trl_says_the_same_as_when_it_was_written_down(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  worker = REPOSITORY / "tests" / "oracle" / "trl_worker.py"
  subprocess.run([PYTHON, worker, tmp_path], check=True)
  for name in ("trl_algorithms", "trl_distillation"):
    held = json.loads((GOLDEN / f"{name}.json").read_text())
    said = json.loads((tmp_path / f"{name}.json").read_text())
    assert sorted(held) == sorted(said)
    for case in held:
      for number in held[case]:
        np.testing.assert_allclose(
          said[case][number], held[case][number], rtol=1e-9, atol=1e-12
        )
