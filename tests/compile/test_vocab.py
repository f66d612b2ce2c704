"""Losses over a vocabulary need a twentieth of the dense ones' memory, at most.

[8, 4096] tokens, D = 1536, V = 151,936 in bf16, forward and backward, in the
memory analysis of libtpu's compiler for a v5p, which both versions fit.
"""

import json
import pathlib

import pytest

from tests.compile import process

DENSE = pathlib.Path(__file__).parents[1] / "golden" / "vocab_dense.json"


def test_a_twentieth_of_dense(tmp_path, capsys):
  process.needs_libtpu()
  dense = json.loads(DENSE.read_text())
  blocked = process.vocabulary("blocked", tmp_path)
  with capsys.disabled():
    for name, temp in blocked.items():
      times = dense[name] / temp
      print(f"\n{name}: {temp:,} of {dense[name]:,}, {times:.1f}x", end="")
  assert blocked.keys() == dense.keys()
  assert not [name for name in dense if 20 * blocked[name] > dense[name]]


@pytest.mark.slow
def test_dense_is_as_committed(tmp_path, golden):
  process.needs_libtpu()
  found = process.vocabulary("dense", tmp_path)
  golden("vocab_dense", {k: float(v) for k, v in found.items()}, rtol=0.05)
