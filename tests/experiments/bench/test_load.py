"""Loading a checkpoint holds it once: a guard of what experiments.bench.load
measures at full size.
"""

import os
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from research.models import hf_files, huggingface, presets, transformer
from tests.experiments.conftest import REPOSITORY

# getrusage's peak is inherited from the parent that forked; VmHWM is not.
PROGRAM = """
import sys
import jax
from research.models import hf_files, huggingface
{first}
held = {held}
jax.block_until_ready(held)
status = dict(x.split(":", 1) for x in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""
LOADED = "huggingface.load(sys.argv[1])"
# The loader's own mistake to make: what was read stays behind.
TWICE = """
read, kept = hf_files.Stored.read, []
hf_files.Stored.read = lambda self: kept.append(read(self)) or kept[-1]
"""


def peak(folder, held, first=""):
  """The most memory that a process of its own ever had."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(first=first, held=held), folder],
    env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
    cwd=REPOSITORY,
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return int(done.stdout)


def written(folder, **changes):
  """Writes a checkpoint; returns its bytes."""
  config = presets.make("tiny", layers=10, dtype="bfloat16", **changes)
  params = jax.tree.map(
    lambda box: np.ones(box.value.shape, ml_dtypes.bfloat16),
    transformer.abstract(config),
    is_leaf=lambda x: hasattr(x, "names"),
  )
  huggingface.save(folder, config, params)
  return hf_files.sizes(hf_files.index(folder))


@pytest.mark.slow
def test_a_checkpoint_is_held_once(tmp_path):
  """Above a process that loads a tiny one, and so has compiled as much.

  The tensors in flight weigh more in 270 MB than at full size, where the peak
  is 1.16 times the checkpoint's size (experiments/results/load.md).
  """
  large, small = tmp_path / "large", tmp_path / "small"
  size = written(large, vocab=4096, width=1024, mlp=4096)
  assert size > 100 * written(small, vocab=4096, width=64, mlp=64)
  idle = peak(small, LOADED)
  once, twice = (
    (peak(large, LOADED, first) - idle) / size for first in ("", TWICE)
  )
  print(f"{size / 1e6:.0f} MB: {once:.2f} times its size; twice: {twice:.2f}")
  assert 1.0 <= once <= 1.5, once
  assert twice > 1.8, twice  # the guard would see a second copy
