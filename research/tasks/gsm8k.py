"""GSM8K, grade-school word problems, from its official files.

    prompt   Natalia sold clips to 48 of her friends in April, and then ...
    trace    Natalia sold 48/2 = 24 clips in May.
             Natalia sold 48+24 = 72 clips altogether in April and May.
             #### 72

Train and test are the publisher's, whole, so that a score is comparable with
others'; a training question that also stands in test is left out. The ood
split is SVAMP: another source with other wording, though not harder, and
without worked answers. The difficulty of a problem is how many calculations
its worked answer marks with `<<...>>`.
"""

import os
import re
from collections.abc import Iterator

from research import splits
from research.data import datasets
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

_MARK = re.compile(r"<<[^<>]*>>")


def problems(
  split: str,
  seed: int,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
  marks: bool = False,
) -> Iterator[Problem]:
  """All problems of a split once, in an order of the seed.

  With `marks` traces keep the publisher's `<<48/2=24>>`, which the gate
  research.annotation.arithmetic checks and takes away. `data_dir` and
  `cache_dir` are those of `research.data.datasets.source`, whose errors say how
  to get the files. Raises ValueError on an unknown split and on an answer
  without a number.
  """
  splits.check("gsm8k", split)
  name, part = ("svamp", "test") if split == "ood" else ("gsm8k", split)
  rows = datasets.source(name, part, data_dir, cache_dir)
  mixed = splits.shuffled(rows, f"gsm8k/{split}/{seed}")
  taken = set() if split == "test" else _keys("test", data_dir, cache_dir)
  if split == "ood":
    taken |= _keys("train", data_dir, cache_dir)
  found = (problem_of(row, marks) for row in mixed)
  return (p for p in found if p.meta["key"] not in taken)


def problem_of(row: dict[str, str], marks: bool = False) -> Problem:
  """The problem of a row of `question` and worked `answer`.

  Raises ValueError when the answer does not end in `#### number`.
  """
  worked, found, answer = row["answer"].rpartition("####")
  answer = answer.strip().replace(",", "")
  if not found or equality.number(answer) is None:
    raise ValueError(
      f"gsm8k: the answer to {row['question'][:60]!r} does not end in a line "
      "`#### number`"
    )
  meta = {
    "key": key_of(row["question"]),
    "difficulty": len(_MARK.findall(worked)),
    "worked": (worked if marks else _MARK.sub("", worked)).strip(),
  }
  return Problem(row["question"].strip(), answer, meta)


def key_of(question: str) -> str:
  """The letters and digits of a question, so that layout does not count."""
  return " ".join(re.findall(r"[a-z0-9]+", question.lower()))


def trace(problem: Problem, seed: int) -> str:
  """The worked answer; one, whatever the seed.

  Raises ValueError for SVAMP, which has none.
  """
  del seed
  if not problem.meta["worked"]:
    raise ValueError(
      f"gsm8k: {problem.prompt[:60]!r} has no worked answer; traces come from "
      "the splits train and test"
    )
  return f"{problem.meta['worked']}\n{answer_text(problem)}"


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line is the answer's number."""
  return equality.grade_number(problem.answer, extract.strict(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, as equal answers share it; or None."""
  return equality.canonical(extract.strict(text))


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether any marker, or else the last number, gives the answer."""
  return equality.grade_number(problem.answer, extract.lenient(text))


def _keys(
  part: str,
  data_dir: str | os.PathLike | None,
  cache_dir: str | os.PathLike | None,
) -> set[str]:
  """The keys of one official file, which no other split may hold."""
  rows = datasets.source("gsm8k", part, data_dir, cache_dir)
  return {key_of(rows[place]["question"]) for place in range(len(rows))}
