"""A mixture of corpora: what each token counts, and what is refused."""

import json

import numpy as np
import pytest

from experiments import corpora, settings
from experiments.corpora import Corpus
from research.models import presets


def a_run():
  model = presets.make("tiny", width=32, layers=1)
  return settings.Run(0, "bytes", model, settings.Mesh())


def written(path, prompt, answers):
  rows = [{"prompt": prompt, "completion": text} for text in answers]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def batch(found, **about):
  sizes = {"rows": 2, "length": 64, "shards": 1, "seed": 0} | about
  return next(corpora.loader(a_run(), found, {}, **sizes))


def test_a_token_counts_its_scale(tmp_path):
  path = written(tmp_path / "a.jsonl", "?", ["abc", "d"])
  weights_BT = batch([Corpus(path, scale=0.25)]).weights_BT
  assert set(np.unique(weights_BT)) == {0, 0.25}


def test_records_count_alike(tmp_path):
  """Step-by-step: alpha for a label however short, the rest for a rationale."""
  label = written(tmp_path / "label.jsonl", "L?", ["y"])
  chain = written(tmp_path / "chain.jsonl", "C?", ["because of this"])
  drawn = batch(
    [Corpus(label, 1, 0.3, "record"), Corpus(chain, 1, 0.7, "record")]
  )
  for b, n in np.argwhere(drawn.positions_BT[:, 1:] == 1).tolist():
    whose = drawn.segments_BT[b] == drawn.segments_BT[b, n]
    kind = chr(drawn.tokens_BT[b][whose][1])
    wanted = {"L": 0.3, "C": 0.7}[kind]
    assert drawn.weights_BT[b][whose].sum() == pytest.approx(wanted, 1e-6)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"weight": -1.0}])
def test_nothing_is_unlearned(wrong):
  with pytest.raises(ValueError, match="must be above 0"):
    Corpus("a.jsonl", **wrong)
