import collections
import os
import pathlib

import pytest

from research.tasks import pubmedqa

ROW = {
  "key": "17",
  "question": "Does it help?",
  "abstract": "We asked 40 women.\nIt helped 30.",
  "long_answer": "It seems to help, or maybe not.",
  "answer": "yes",
}
DATA = pathlib.Path(
  os.environ.get("PITH_DATA", pathlib.Path(__file__).parents[4] / "shared/data")
)
needs_data = pytest.mark.skipif(
  not (DATA / "pubmedqa/pqal_train.json").exists(),
  reason="PubMedQA's file is not here; PITH_DATA says where it is",
)


def test_prompt_and_trace():
  problem = pubmedqa.problem_of(ROW)
  assert problem.prompt == (
    "We asked 40 women.\nIt helped 30.\nQuestion: Does it help?\n"
    "Answer with yes, no or maybe."
  )
  assert pubmedqa.trace(problem, 0) == (
    "It seems to help, or maybe not.\n#### yes"
  )
  assert problem.meta["difficulty"] == 2
  # The conclusion tells the answer, so a prompt never has it.
  assert ROW["long_answer"] not in problem.prompt


@pytest.mark.parametrize(
  ("passages", "lines"), [(None, 4), (9, 4), (2, 4), (1, 3), (0, 2)]
)
def test_the_last_passages_are_shown(passages, lines):
  whole = pubmedqa.problem_of(ROW)
  problem = pubmedqa.problem_of(ROW, passages)
  assert problem.prompt.split("\n") == whole.prompt.split("\n")[-lines:]
  assert problem.meta == whole.meta


@pytest.mark.parametrize(
  ("text", "strict", "lenient"),
  [
    ("#### yes", "correct", "correct"),
    ("maybe\n#### Yes.", "correct", "correct"),
    ("#### yes\n#### no", "wrong", "wrong"),
    ("#### maybe", "wrong", "wrong"),
    ("#### yes or no", "unparsed", "wrong"),
    ("#### yesterday", "unparsed", "unparsed"),
    ("Yes", "unparsed", "correct"),
    ("no, rather yes!", "unparsed", "correct"),
    ("#### perhaps", "unparsed", "unparsed"),
  ],
)
def test_grading(text, strict, lenient):
  problem = pubmedqa.problem_of(ROW)
  assert pubmedqa.reward(problem, text).kind == strict
  assert pubmedqa.lenient(problem, text).kind == lenient


@needs_data
def test_the_published_file(tmp_path):
  found = {
    split: list(pubmedqa.problems(split, 0, DATA, tmp_path))
    for split in pubmedqa.SPLITS
  }
  sizes = {split: len(problems) for split, problems in found.items()}
  assert sizes == {"train": 106, "test": 394, "ood": 0}
  counts = collections.Counter(p.answer for p in found["test"])
  assert counts["yes"] > counts["no"] > counts["maybe"] > 30
