"""PubMedQA: a question about an abstract, to be answered by yes, no or maybe.

    prompt   Telephone counseling and tailored print communications have ...
             Three-year randomized field trial.
             ...
             Question: Can tailored interventions increase mammography use?
             Answer with yes, no or maybe.
    trace    Telephone counseling seemed particularly effective ...
             #### yes

The trace is the abstract's own conclusion. Of the 500 labelled articles of the
publisher's training half a fifth is train and the rest is test: most students
see none of them, and an interval wants many. Nothing is ood: that split is
empty. The difficulty is how many passages the abstract has.
"""

import os
import re
from collections.abc import Iterator

from research import splits
from research.data import datasets
from research.data.readers import DECISIONS
from research.grading import extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

_WORD = re.compile(rf"\b(?:{'|'.join(DECISIONS)})\b", re.IGNORECASE)


def problems(
  split: str,
  seed: int,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  passages: int | None = None,
) -> Iterator[Problem]:
  """All problems of a split once, in an order of the seed.

  `data_dir` and `cache_dir` are those of `research.data.datasets.source`,
  whose errors say how to get the file. Of the abstract the last `passages` are
  shown, or all; 0 leaves the question alone, which students of a short context
  can read. Raises ValueError on an unknown split and on fewer than none.
  """
  splits.check("pubmedqa", split)
  if passages is not None and passages < 0:
    raise ValueError(f"pubmedqa: {passages} passages; at least 0 are wanted")
  rows = datasets.source("pubmedqa", "train", data_dir, cache_dir)
  mixed = splits.shuffled(rows, f"pubmedqa/{seed}")
  found = (problem_of(row, passages) for row in mixed)
  return (p for p in found if split_of(p) == split)


def split_of(problem: Problem) -> str:
  """The split of a problem, a property of its article's number alone."""
  return "train" if splits.digest(problem.meta["key"]) % 5 == 0 else "test"


def problem_of(row: dict[str, str], passages: int | None = None) -> Problem:
  """The problem of a row of the published set, with its last `passages`."""
  told = row["abstract"].split("\n")
  shown = told if passages is None else told[max(0, len(told) - passages) :]
  question = f"Question: {row['question']}"
  prompt = "\n".join([*shown, question, "Answer with yes, no or maybe."])
  meta = {
    "key": row["key"],
    "difficulty": len(told),
    "conclusion": row["long_answer"],
  }
  return Problem(prompt, row["answer"], meta)


def trace(problem: Problem, seed: int) -> str:
  """The abstract's conclusion and the answer; one, whatever the seed."""
  del seed
  return f"{problem.meta['conclusion']}\n{answer_text(problem)}"


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line is the answer, a single word of the three."""
  return _graded(problem, extracted(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, in lower case; None where it is another."""
  found = (extract.strict(text) or "").rstrip(".").casefold()
  return found if found in DECISIONS else None


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether the last of the three words that stands anywhere is the answer."""
  words = _WORD.findall(extract.conclusion(text))
  return _graded(problem, words[-1].casefold() if words else None)


def _graded(problem: Problem, answer: str | None) -> Verdict:
  """A verdict on an answer, None where there is none."""
  if answer is None:
    return Verdict("unparsed", 0.0)
  if answer == problem.answer:
    return Verdict("correct", 1.0)
  return Verdict("wrong", 0.0)
