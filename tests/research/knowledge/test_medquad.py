"""Answers in pieces: nothing lost, nothing twice, nothing of the test."""

import gzip
import json

from research.data import datasets
from research.knowledge import medquad


def test_answers_are_cut_whole(tmp_path):
  rows = [
    {"question": f"Q{i}?", "answer": " ".join(f"{i}w{n}" for n in range(7))}
    for i in range(40)
  ]
  rows = [row | {"url": f"u/{i}", "source": "S"} for i, row in enumerate(rows)]
  path = tmp_path / datasets.SETS["medquad"].files["train"]
  path.parent.mkdir()
  path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
  where = {"data_dir": tmp_path, "cache_dir": tmp_path / "cache"}
  found = medquad.passages(words=3, **where)
  assert {len(passage.split()) for passage in found} == {3, 1}
  train = list(datasets.source("medquad", "train", *where.values()))
  whole = " ".join(row["answer"] for row in train)
  assert " ".join(found) == whole and len(set(found)) == len(found)
  test = list(datasets.source("medquad", "test", *where.values()))
  assert test and not set(found) & {row["answer"] for row in test}
  pieces = " ".join(found).split()
  assert not set(pieces) & {w for row in test for w in row["answer"].split()}
