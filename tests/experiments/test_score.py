"""Held-out nats: packed rows say what each conversation says alone."""

import json

import jax
import numpy as np
import pytest

from experiments import settings, student
from experiments.stages import checkpoint, score
from research.data import jsonl, packing, text
from research.models import huggingface, transformer
from research.training import objectives
from tests.experiments import tiny

MODEL = settings.build(settings.Model, tiny.get_config().model.to_dict())
RUN = settings.Run(0, "bytes", MODEL, settings.Mesh())
SIZES = (3, 30, 11, 1, 70, 18, 25, 2, 9, 40, 5)  # of questions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  path = tmp_path_factory.mktemp("corpus") / "held_out.jsonl"
  records = [
    {"prompt": "q" * n, "completion": "answer"[: n % 6] + str(n)} for n in SIZES
  ]
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return str(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """Two students, which are checkpoints of random numbers."""
  found = {}
  for seed, name in enumerate(("one", "other")):
    folder = tmp_path_factory.mktemp("weights") / name
    params = transformer.init(MODEL, jax.random.key(seed))
    params = jax.tree.map(lambda x: 3 * x, params)
    huggingface.save(folder, MODEL, params)
    told = checkpoint.run(checkpoint.Config(RUN, str(folder)), {}, folder)
    found[name] = {"folder": str(folder), **told}
  return found


def asked(corpus, **changes):
  usual = {"students": ("one", "other"), "rows": 2, "length": 64}
  usual |= {"pairs": (("one", "other"),)}
  return score.Config(run=RUN, corpus=corpus, **usual | changes)


def test_packed_rows_say_what_each_says_alone(corpus, inputs, monkeypatch):
  told = score.run(asked(corpus), inputs, None)
  assert (told["scored"], told["left_out"]) == (len(SIZES) - 1, 1)
  seen = {}
  keep = lambda name, given: seen.setdefault(name, given)
  monkeypatch.setattr(
    score.intervals, "bootstrap", lambda x, seed: keep(len(seen), x)
  )
  score.run(asked(corpus, pairs=()), inputs, None)
  tokenizer = text.ByteTokenizer()
  examples = [text.example(tokenizer, r) for r in jsonl.read(corpus)]
  fitting = [e for e in examples if packing.size_of(e) <= 64]
  for name, found in zip(inputs, seen.values(), strict=True):
    params = student.load(asked(corpus), inputs, name, None)
    wanted = [alone(params, example) for example in fitting]
    places = [
      str(i) for i, e in enumerate(examples) if packing.size_of(e) <= 64
    ]
    assert list(found) == places
    np.testing.assert_allclose(list(found.values()), wanted, rtol=1e-6)
    mean = told["summary"][f"{name}/nats"]["mean"]
    np.testing.assert_allclose(mean, np.mean(wanted), rtol=1e-6)
    assert np.ptp(wanted) > 0.1  # no two conversations say the same
  gap = told["summary"]["one_minus_other/nats"]["mean"]
  means = [told["summary"][f"{name}/nats"]["mean"] for name in inputs]
  np.testing.assert_allclose(gap, means[0] - means[1], atol=1e-6)


def alone(params, example):
  """A conversation's nats a token, from dense logits in a row of its own."""
  batch = packing.to_batch([[example]], 64, pad=260)
  said = objectives.speak(MODEL, params, batch, None)
  logits_TV = np.asarray(said.hidden_BTE[0]) @ np.asarray(said.unembed_VE).T
  logprobs_TV = np.asarray(jax.nn.log_softmax(logits_TV))
  weights_T = np.asarray(batch.weights_BT[0])
  following_T = np.roll(np.asarray(batch.tokens_BT[0]), -1)
  picked_T = logprobs_TV[np.arange(64), following_T]
  return -(picked_T * weights_T).sum() / weights_T.sum()


def test_pieces_of_a_document_are_one_of_its_kind(tmp_path, inputs):
  """Three documents are three, in however many pieces they are read."""
  path = tmp_path / "documents.jsonl"
  told = [
    {"text": letter * n} for letter, n in (("a", 150), ("b", 10), ("c", 70))
  ]
  path.write_text("".join(json.dumps(r) + "\n" for r in told))
  found = score.run(asked(str(path)), inputs, None)
  assert found["scored"] == 3 and found["left_out"] == 0
  assert found["summary"]["one/nats"]["n"] == 3


def test_a_record_is_the_mean_of_all_its_tokens():
  costs = {0: (6.0, 2.0), 1: (1.0, 4.0), 2: (5.0, 5.0)}
  assert score.by_record(costs, [7, 7, 9]) == {"7": 7 / 6, "9": 1.0}


@pytest.mark.parametrize("rows, length", [(8, 96), (1, 40)])
def test_how_rows_are_cut_is_no_matter(corpus, inputs, rows, length):
  """Those that fit 40 tokens, alone and among others."""
  short = corpus.replace("held_out", f"short{length}")
  records = [r for r in jsonl.read(corpus) if len(r["prompt"]) < 25]
  with open(short, "w") as file:
    file.writelines(json.dumps(r) + "\n" for r in records)
  wanted = score.run(asked(short), inputs, None)["summary"]
  how = {"rows": rows, "length": length}
  found = score.run(asked(short, **how), inputs, None)["summary"]
  for name, values in wanted.items():
    for key, value in values.items():
      np.testing.assert_allclose(found[name][key], value, rtol=1e-5)


def test_rows_longer_than_the_context_are_refused(corpus):
  with pytest.raises(ValueError, match=r"rows of 97 .* context of 96"):
    asked(corpus, length=97)


def test_a_corpus_that_fits_no_row_is_named(corpus, inputs):
  with pytest.raises(ValueError, match=r"none of 11 .* fits 2 tokens"):
    score.run(asked(corpus, length=2), inputs, None)
