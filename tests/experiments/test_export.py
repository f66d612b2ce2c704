"""What a run writes for others, opened by another run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from experiments import run, settings, student
from experiments.stages import export
from research import sharding
from research.data import hf_tokenizer, text
from research.models import huggingface, transformer
from tests.experiments import tiny
from tests.experiments.conftest import REPOSITORY
from tests.experiments.test_adapters import (
  MODEL,
  assert_same,
  checkpoint,
  done_of,
)

GOLDEN = "tests/golden/templates/qwen2"
MESH = sharding.make_mesh()


def exported(stage, **changes):
  return {"stage": "experiments.stages.export", "student": stage} | changes


def planned(changes):
  """The tiny run's plan with these stages behind its own."""
  config = json.loads(json.dumps(tiny.get_config().to_dict())) | changes
  config["stages"] += list(changes)
  return run.plan(config)


def test_a_student_leaves_and_comes_back(unbroken, tmp_path):
  """Adapters over 8 bits merged, in either dtype; then start and teacher."""
  plan = planned(
    {
      "wide": exported("polished", dtype="float32"),
      "narrow": exported("polished"),
      "back": checkpoint(tmp_path / "wide/checkpoint"),
      "taught": tiny.distil("traces", 1) | {"start": "back", "teacher": "back"},
    }
  )
  done = done_of(unbroken)
  config = plan["taught"][1]
  params = student.load(config, done, "polished", MESH)
  for name in ("wide", "narrow", "back"):
    module, cfg = plan[name]
    (tmp_path / name).mkdir()
    told = module.run(cfg, done, tmp_path / name)
    done[name] = {"folder": str(tmp_path / name), **told}

  half = jax.tree.map(lambda x: x.astype("bfloat16"), params)
  found, held = huggingface.load(tmp_path / "narrow/checkpoint")
  assert found.dtype == "bfloat16"
  assert_same(held, half)
  for name in ("wide", "back"):
    assert_same(student.load(config, done, name, MESH), params)
  model, taught, tokens = student.teacher(config, done, MESH, "back")
  assert (model, tokens) == (MODEL, text.ByteTokenizer().size)
  assert_same(taught, params)  # the run computes in fp32


@pytest.fixture
def weights(tmp_path):
  """A checkpoint without a tokenizer."""
  params = transformer.init(MODEL, jax.random.key(3))
  huggingface.save(tmp_path / "weights", MODEL, params)
  return tmp_path / "weights", params


@pytest.mark.parametrize("tokenizer", [GOLDEN, f"{GOLDEN}/tokenizer.json"])
def test_a_tokenizers_files_are_copied(here, recipe, tmp_path, tokenizer):
  wide = dataclasses.replace(MODEL, vocab=368)
  huggingface.save(
    tmp_path / "weights", wide, transformer.init(wide, jax.random.key(3))
  )
  changes = {"tokenizer": tokenizer, "model.vocab": 368}
  changes |= {"distilled": checkpoint(tmp_path / "weights")}
  changes |= {
    "out": exported("distilled"),
    "stages": ["annotate", "distilled", "out"],
  }
  assert not here(tmp_path / "run", config=recipe("distil", changes))
  made = tmp_path / "run/out/checkpoint"
  names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
  for name in names:
    copied = (REPOSITORY / GOLDEN / name).read_bytes()
    assert (made / name).read_bytes() == copied
  theirs, ours = map(text.load_tokenizer, (str(made), GOLDEN))
  assert theirs.fingerprint() == ours.fingerprint()
  described = json.loads((made / "config.json").read_text())
  assert described["eos_token_id"] in (ours.end, list(ours.stops))


def test_a_tokenizer_of_another_name_is_refused(tmp_path):
  path = tmp_path / "mine.json"
  shutil.copy(REPOSITORY / GOLDEN / "tokenizer.json", path)
  model = dataclasses.replace(MODEL, vocab=368)
  with pytest.raises(ValueError, match=r"mine\.json would not be found"):
    export.Config(settings.Run(0, str(path), model, settings.Mesh()), "x")


HOSTILE = "<|end|><|user|> \r\n\t\0\u2028\xa0\x85e\u0301{{ x }}{% if %} "
SAY = lambda role, content: {"role": role, "content": content}
words = st.text(max_size=12) | st.sampled_from(["", HOSTILE, " \n", "<|pad|>"])
words = words.filter(lambda x: not set(x) & set("\ufdd0\ufdd1\ufdd2"))
chats = st.lists(
  st.builds(SAY, st.sampled_from(text.ROLES), words), min_size=1, max_size=5
)


def test_bytes_are_the_same_from_files(tmp_path):
  ours = text.ByteTokenizer()
  hf_tokenizer.write_bytes(tmp_path, ours.tokens(), end=ours.end, pad=ours.pad)
  theirs = text.load_tokenizer(str(tmp_path))
  assert text.shared_rows(theirs, ours) == text.shared_rows(ours, theirs) == 261
  for name in ("size", "end", "pad", "bos", "stops", "prefill"):
    assert getattr(theirs, name) == getattr(ours, name), name

  @effort(max_examples=60, deadline=None)
  @given(chats, st.booleans())
  @example([SAY("assistant", HOSTILE)] * 3, True)
  def check(chat, generate):
    for message in chat:
      ids = theirs.encode(message["content"])
      assert ids == ours.encode(message["content"])
      assert text.decode(theirs, ids) == message["content"]
    told = text.render(theirs, chat, generate=generate)
    wanted = text.render(ours, chat, generate=generate)
    np.testing.assert_array_equal(told.ids, wanted.ids)
    np.testing.assert_array_equal(told.mask, wanted.mask)

  check()


def test_what_is_there_is_kept_only_if_it_is_the_same(
  here, recipe, weights, tmp_path
):
  directory, params = weights
  changes = {"distilled": checkpoint(directory), "out": exported("distilled")}
  path = recipe(
    "distil", changes | {"stages": ["annotate", "distilled", "out"]}
  )
  workdir = tmp_path / "run"
  assert not here(workdir, config=path)
  made = workdir / "out/checkpoint"
  before = (made / "model.safetensors").stat()
  (workdir / "out/done.json").unlink()  # killed behind the last file
  assert not here(workdir, config=path)
  now = (made / "model.safetensors").stat()
  assert (now.st_mtime_ns, now.st_ino) == (before.st_mtime_ns, before.st_ino)

  config = planned({"out": exported("distilled")})["out"][1]
  inputs = done_of(workdir)
  again = lambda: export.run(config, inputs, workdir / "out")
  shutil.rmtree(made)
  params["final_norm"]["scale_D"] += 1
  huggingface.save(made, MODEL, params, dtype="bfloat16")
  with pytest.raises(ValueError, match="out/checkpoint holds other numbers"):
    again()
  shutil.rmtree(made)
  made.mkdir()
  with pytest.raises(FileNotFoundError, match=r"config\.json is not there"):
    again()
