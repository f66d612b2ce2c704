"""Teachers beside a student: recorded ones, and checkpoints of another size."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import settings
from research.data import signals
from research.models import huggingface, transformer
from tests.experiments import tiny

GOLDEN = "tests/golden/templates/qwen2"
MODEL = settings.build(settings.Model, tiny.get_config().model.to_dict())


def losses(workdir, stage):
  lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line)["loss"] for line in lines]


def distil(loss, **changes):
  stage = tiny.distil("traces", 12)
  stage["loss"] = {"name": f"research.losses.{loss}", "args": {}}
  return stage | changes


def record(**changes):
  usual = {
    "stage": "experiments.stages.record",
    "corpora": ["{annotate}/traces.jsonl", "{annotate}/answers.jsonl"],
    "teacher": "distilled",
    "candidates": 50,
    "rows": 4,
    "length": 64,
    "part": 40,
  }
  return usual | changes


@pytest.mark.slow
def test_a_recorded_teacher_teaches_as_the_live_one(here, recipe, tmp_path):
  """Shuffled, packed and accumulated otherwise than it was recorded."""
  changes = {
    "distilled": tiny.distil("traces", 100),  # sure of what it says
    "recorded": record(),
    "base": tiny.distil("answers", 3),
    "live": distil("forward_kl", teacher="distilled", start="base"),
    "cached": distil(
      "top_candidates", signals="recorded", start="base", microbatches=2
    ),
    "stages": ["annotate", "distilled", "recorded", "base", "live", "cached"],
  }
  workdir = tmp_path / "run"
  assert not here(workdir, config=recipe("distil", changes))
  live, cached = losses(workdir, "live"), losses(workdir, "cached")
  np.testing.assert_allclose(cached, live, rtol=0.01)
  assert live[-1] < 0.8 * live[0] and cached != live
  done = json.loads((workdir / "recorded/done.json").read_text())
  assert done["examples"] == 128
  assert len(signals.Cache(workdir / "recorded/signals")) == 128


def test_candidates_that_no_stage_recorded_are_an_error(here, recipe, tmp_path):
  """The other corpus's tokens are not in the cache."""
  changes = {
    "recorded": record(corpora=["{annotate}/traces.jsonl"]),
    "cached": distil("top_candidates", signals="recorded"),
    "stages": ["annotate", "distilled", "recorded", "cached"],
  }
  told = here(tmp_path / "run", config=recipe("distil", changes))
  assert "another corpus" in told


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  """A checkpoint of another width, with another padding of the vocabulary."""
  model = settings.build(
    settings.Model,
    tiny.get_config().model.to_dict()
    | {"width": 48, "vocab": 384, "tied": False},
  )
  path = tmp_path_factory.mktemp("checkpoint") / "teacher"
  huggingface.save(path, model, transformer.init(model, jax.random.key(3)))
  for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copy(f"{GOLDEN}/{name}", path / name)
  return path


def checkpoint(directory):
  return {
    "stage": "experiments.stages.checkpoint",
    "directory": str(directory),
  }


def test_a_larger_teacher_of_the_same_tokens(here, recipe, teacher, tmp_path):
  changes = {
    "tokenizer": GOLDEN,
    "model.vocab": 368,
    "distilled": checkpoint(teacher),
    "student": distil("reverse_kl", teacher="distilled", teacher_bits=8)
    | {"length": 96},
    "recorded": record(length=96),
    "stages": ["annotate", "distilled", "recorded", "student"],
  }
  workdir = tmp_path / "run"
  assert not here(workdir, config=recipe("distil", changes))
  found = losses(workdir, "student")
  assert np.isfinite(found).all() and found[-1] < found[0]
  about = signals.Cache(workdir / "recorded/signals").about
  assert about["vocab"] == 361  # of 368 and 384 rows


@pytest.mark.parametrize(
  "loss", ["aligned_spans", pytest.param("universal", marks=pytest.mark.slow)]
)
def test_a_teacher_of_other_tokens(here, recipe, teacher, tmp_path, loss):
  """The student reads bytes, the teacher its own tokens and template."""
  changes = {
    "distilled": checkpoint(teacher),
    "student": distil(loss, teacher="distilled", other_tokens=True),
    "stages": ["annotate", "distilled", "student"],
  }
  workdir = tmp_path / "run"
  assert not here(workdir, config=recipe("distil", changes))
  found = losses(workdir, "student")
  assert np.isfinite(found).all() and found[-1] < 0.9 * found[0]


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"teacher": None}, "no teacher that has other_tokens"),
    ({"loss": {"name": "research.losses.jsd"}}, "jsd compares token by token"),
    ({}, "'distilled' is no checkpoint"),
  ],
)
def test_who_cannot_have_other_tokens(here, recipe, tmp_path, changes, told):
  student = distil("universal", teacher="distilled", other_tokens=True)
  changes = {
    "distilled": tiny.distil("traces", 2),
    "student": student | changes,
    "stages": ["annotate", "distilled", "student"],
  }
  assert told in here(tmp_path / "run", config=recipe("distil", changes))


def test_a_teacher_of_other_tokens_is_refused(here, recipe, teacher, tmp_path):
  changes = {
    "distilled": checkpoint(teacher),
    "student": distil("reverse_kl", teacher="distilled"),
    "stages": ["annotate", "distilled", "student"],
  }
  told = here(tmp_path / "run", config=recipe("distil", changes))
  assert told.startswith("error: id 0 is ") and "one vocabulary" in told
