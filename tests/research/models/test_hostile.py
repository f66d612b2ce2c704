"""Folders that are not what they seem: a pickle, two checkpoints in one."""

import json
import pathlib
import pickle

import pytest

from research.models import huggingface
from tests.research.models.test_huggingface import (
  QWEN3,
  assert_same,
  make,
  save,
)


class Payload:
  """Makes a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_a_pickle_is_never_opened(tmp_path):
  folder, trace = save(tmp_path / "x"), tmp_path / "executed"
  data = pickle.dumps(Payload(trace))
  pickle.loads(data)  # noqa: S301
  trace.unlink()  # the trap is real: unlink raises where nothing is there
  (folder / "pytorch_model.bin").write_bytes(data)
  assert_same(huggingface.load(folder)[1], make(QWEN3))
  (folder / "model.safetensors").unlink()
  with pytest.raises(
    FileNotFoundError, match=r"pytorch_model\.bin is a pickle"
  ):
    huggingface.load(folder)
  (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
  with pytest.raises(ValueError, match="is no safetensors file"):
    huggingface.load(folder)
  assert not trace.exists()


def test_one_file_and_an_index_of_others_are_refused(tmp_path):
  """transformers would read the one, others the rest: one of them is stale."""
  folder = save(tmp_path / "x", most=20_000)
  single = save(tmp_path / "y") / "model.safetensors"
  single.rename(folder / single.name)
  with pytest.raises(ValueError, match=r"x holds model\.safetensors and, by"):
    huggingface.load(folder)
  index = folder / "model.safetensors.index.json"
  names = json.loads(index.read_text())["weight_map"]
  alone = {"weight_map": dict.fromkeys(names, single.name)}
  index.write_text(json.dumps(alone))  # such a folder is published, too
  assert_same(huggingface.load(folder)[1], make(QWEN3))
