"""Stages that train adapters: what they keep, and what stands behind them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import loop, run, settings, student
from experiments.configs import gsm8k_lora
from research import sharding
from research.data import jsonl, text
from research.models import huggingface, lora, peft, quantize, transformer
from research.models.config import Lora
from tests.experiments import tiny

LORA = {"rank": 2, "alpha": 8.0, "targets": ("q", "o", "up", "down")}
MODEL = settings.build(settings.Model, tiny.get_config().model.to_dict())
MESH = sharding.make_mesh()


def stages(config):
  return run.plan(json.loads(json.dumps(config.to_dict())))


def done_of(workdir):
  """What the stages of a run told, as the stages behind them are given it."""
  told = {
    p.parent.name: json.loads(p.read_text())
    for p in workdir.glob("*/done.json")
  }
  return {n: {"folder": str(workdir / n), **done} for n, done in told.items()}


def adapters_of(workdir, stage, wanted, model=MODEL):
  adapted = dataclasses.replace(model, lora=settings.build(Lora, wanted))
  path = workdir / stage / "checkpoints"
  return adapted, loop.load_params(path, adapted, MESH)


RANDOM = np.random.default_rng(0).integers(0, 259, (2, 40))


def logits(model, params, tokens=RANDOM):
  rows, T = tokens.shape
  places = jnp.broadcast_to(jnp.arange(T)[None], (rows, T))
  ones = jnp.ones((rows, T), jnp.int32)
  hidden = transformer.apply(model, params, jnp.asarray(tokens), places, ones)[
    0
  ]
  unembed = transformer.unembedding(model, params)
  return np.einsum("BTD,VD->BTV", np.asarray(hidden), np.asarray(unembed))


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def recorded(workdir, stage):
  """The names and bytes of a stage's newest checkpoint."""
  newest = max((workdir / stage / "checkpoints").iterdir())
  record = json.loads((newest / "checkpoint/host/metadata").read_text())
  files = (newest / "checkpoint" / "state").rglob("*")
  return record["leaves"], sum(p.stat().st_size for p in files if p.is_file())


def test_only_adapters_are_saved(unbroken):
  names, size = recorded(unbroken, "polished")
  arrays = {n for n, text in names.items() if text.startswith("float32[")}
  assert arrays and all("_lora/" in name for name in arrays)
  halves = {name.split("layers/")[1] for name in arrays}
  assert len(halves) == 6  # q, o and down, A and B
  for moment in ("params", "mu", "nu"):
    held = {n.split("layers/")[1] for n in arrays if moment in n.split("/")}
    assert held == halves
  whole = recorded(unbroken, "distilled")[1]
  assert size < 0.7 * whole, (size, whole)


def test_behind_a_stage_its_adapters_are_merged(unbroken):
  """The base is what was trained over: 8 bits of another stage's numbers."""
  cfg, done = stages(tiny.get_config())["polished"][1], done_of(unbroken)
  told = done["polished"]["adapters"]
  assert (told["start"], told["base_bits"]) == ("answer_only", 8)
  base = student.load(cfg, done, "answer_only", MESH)
  narrow = quantize.quantize(base, 8)
  model, adapters = adapters_of(unbroken, "polished", told["lora"])
  plain, merged = lora.merge(model, lora.join(narrow, adapters))
  assert plain == MODEL
  assert_same(student.load(cfg, done, "polished", MESH), merged)
  unmerged = logits(model, lora.join(narrow, adapters))
  np.testing.assert_allclose(logits(plain, merged), unmerged, atol=1e-4)
  # Negative controls: neither the base nor its rounding is all there is.
  assert np.abs(logits(MODEL, narrow) - unmerged).max() > 1e-3
  assert np.abs(logits(MODEL, base) - unmerged).max() > 1e-3


def adapted(**changes):
  return tiny.distil("traces", 3) | {"lora": LORA} | changes


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("checkpoint") / "student"
  huggingface.save(path, MODEL, transformer.init(MODEL, jax.random.key(3)))
  return path


def checkpoint(directory):
  stage = "experiments.stages.checkpoint"
  return {"stage": stage, "directory": str(directory)}


@pytest.mark.slow
def test_adapters_over_adapters_over_a_checkpoint(
  here, recipe, directory, tmp_path
):
  score = {
    "stage": "experiments.stages.score",
    "students": ["distilled", "first", "second"],
    "corpus": "{annotate}/traces.jsonl",
    "rows": 24,
    "length": 64,
    "pairs": [["first", "distilled"]],
  }
  changes = {
    "distilled": checkpoint(directory),
    "first": adapted(start="distilled"),
    "second": tiny.reinforce("first") | {"lora": LORA},
    "score": score,
    "stages": ["annotate", "distilled", "first", "second", "score"],
  }
  workdir = tmp_path / "run"
  assert not here(workdir, config=recipe("distil", changes))
  done = done_of(workdir)
  config = stages(tiny.get_config())["polished"][1]
  base = student.load(config, done, "distilled", MESH)
  assert_same(base, huggingface.load(directory)[1])
  settings = json.loads(
    (workdir / "first/peft/adapter_config.json").read_text()
  )
  assert settings["base_model_name_or_path"] == str(directory)
  for stage in ("first", "second"):
    model, adapters = adapters_of(workdir, stage, LORA)
    found, written = peft.load(workdir / stage / "peft", MODEL)
    assert found == model
    assert_same(written, adapters)
    assert max(np.abs(x).max() for x in jax.tree.leaves(adapters)) > 0
    _, base = lora.merge(model, lora.join(base, adapters))
    assert_same(student.load(config, done, stage, MESH), base)
  nats = {n: x["mean"] for n, x in done["score"]["summary"].items()}
  assert nats["first/nats"] < nats["distilled/nats"] < 7
  gap = nats["first/nats"] - nats["distilled/nats"]
  np.testing.assert_allclose(nats["first_minus_distilled/nats"], gap, rtol=1e-4)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (
      {"model.mlp": 80, "model.qk_norm": False},
      ("mlp is 64 there and 80", "qk_norm is True there"),
    ),
    ({"distilled": checkpoint("nowhere")}, ("nowhere/config.json",)),
  ],
)
def test_a_checkpoint_of_another_model_is_named(
  here, recipe, directory, tmp_path, changes, said
):
  changes = {
    "distilled": checkpoint(directory),
    "first": adapted(start="distilled"),
    "stages": ["annotate", "distilled", "first"],
    **changes,
  }
  told = here(tmp_path / "run", config=recipe("distil", changes))
  assert told.startswith("error: ") and all(word in told for word in said)


REFUSED = {
  "adapters over nothing": ({"distilled": adapted()}, "name their stage"),
  "bits of no base": (
    {"distilled": tiny.distil("traces", 3) | {"base_bits": 8}},
    "set lora as well",
  ),
  "bits of no teacher": (
    {"distilled": tiny.distil("traces", 3) | {"teacher_bits": 8}},
    "no teacher",
  ),
  "other bits": ({"distilled": adapted(start="annotate", base_bits=3)}, "3"),
  "no such matrix": (
    {"distilled": adapted(lora={"rank": 1, "alpha": 1, "targets": ["x"]})},
    "targets are",
  ),
  "a typo": (
    {"distilled": adapted(lora={"rnak": 1, "alpha": 1})},
    "distilled.lora.rnak",
  ),
  "for all stages": ({"model.lora": LORA}, "config.STAGE.lora"),
}


@pytest.mark.parametrize("changes, said", REFUSED.values(), ids=REFUSED)
def test_adapters_that_cannot_be_are_refused(
  here, recipe, tmp_path, changes, said
):
  told = here(tmp_path / "run", config=recipe("distil", changes))
  assert isinstance(told, str) and told.startswith("error: ") and said in told
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_lora_on_real_text_lowers_the_held_out_loss(
  finish, data_dir, tmp_path
):
  flag = f"--config.data_dir={data_dir}"
  recipe = "experiments/configs/gsm8k_lora.py:test"
  code, _, err = finish(tmp_path, flag, config=recipe, optimised=True)
  assert code == 0, err
  summary = json.loads((tmp_path / "summary.json").read_text())
  assert summary["adapted_minus_base/nats"]["high"] < -0.05, summary
  assert summary["base/nats"]["mean"] < 0.7 * np.log(256)

  cfg = stages(gsm8k_lora.get_config("test"))["adapted"][1]
  done, model = done_of(tmp_path), cfg.run.model
  told = done["adapted"]["adapters"]
  base = student.load(cfg, done, "base", MESH)
  base = quantize.quantize(base, told["base_bits"])
  adapted, adapters = adapters_of(tmp_path, "adapted", told["lora"], model)
  (record, *_) = jsonl.read(tmp_path / "heldout" / "traces.jsonl")
  tokens = text.example(settings.load_tokenizer(cfg.run), record)["tokens"]
  unmerged = logits(adapted, lora.join(base, adapters), tokens[None])
  merged = student.load(cfg, done, "adapted", MESH)
  gap = np.abs(logits(model, merged, tokens[None]) - unmerged).max()
  assert gap <= 1e-5 * np.ptp(unmerged), gap
