"""Our templates, rendered anew by transformers in an environment of its own."""

import json
import pathlib
import shutil
import subprocess

import pytest

from research.data import hf_tokenizer, text

REPOSITORY = pathlib.Path(__file__).parents[2]
PYTHON = REPOSITORY / ".venv-torch" / "bin" / "python"
GOLDEN = REPOSITORY / "tests" / "golden" / "templates"


def ask(folder):
  worker = REPOSITORY / "tests" / "oracle" / "templates_worker.py"
  subprocess.run([PYTHON, worker, "ask", folder], check=True)


@pytest.mark.slow
def test_transformers_still_says_what_is_kept(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
  kept = {path: path.read_text() for path in tmp_path.glob("*/said.json")}
  assert len(kept) == 5
  for path in kept:
    path.unlink()
  ask(tmp_path)
  for path, said in kept.items():
    assert path.read_text() == said, path.parent.name


@pytest.mark.slow
def test_transformers_reads_bytes_as_we_do(tmp_path):
  if not PYTHON.exists():
    pytest.skip("no .venv-torch: make oracle")
  ours, folder = text.ByteTokenizer(), tmp_path / "bytes"
  folder.mkdir()
  hf_tokenizer.write_bytes(folder, ours.tokens(), end=ours.end, pad=ours.pad)
  (folder / "blocks.json").write_text(json.dumps(hf_tokenizer.BY_TURNS))
  ask(tmp_path)
  said = json.loads((folder / "said.json").read_text())
  chats = json.loads((GOLDEN / "conversations.json").read_text())
  assert len(said) == len(chats) == 20
  for name, messages in chats.items():
    whole = text.render(ours, messages)
    _, ids, mask = said[name]["whole"]
    assert ids == whole.ids.tolist(), name
    assert mask == "".join(map(str, whole.mask.tolist())), name
    answered = messages[-1]["role"] == "assistant"
    before = messages[:-1] if answered else messages
    prompt = text.render(ours, before, generate=True)
    assert said[name]["prompt"][1] == prompt.ids.tolist(), name
