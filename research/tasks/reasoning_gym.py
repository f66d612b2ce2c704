"""Any family of the `reasoning-gym` package, by name, graded by our own rule.

    prompt        Calculate 5 - 3 - 6.
    answer_text   <answer>-4</answer>

Only the package's generators are used. Its scorers execute the text of an
answer in nine families, pay for any answer that contains the gold in many
more, and raise on junk. The rule here compares with the stored answer: as
numbers where both are, else letter by letter. Where a question has several
right answers it therefore knows one of them, and it underrates.

There is no `trace`: the package has answers, not workings.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import reasoning_gym as gym
from reasoning_gym.factory import DATASETS

from research import splits
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS

# Some families list every problem when they are built, so they are built small
# and often.
CHUNK = 500

UNREPEATABLE = ("codeio", "list_functions")
# These walk over sets of strings, whose order changes with each process.
UNORDERED = (
  "isomorphic_strings",
  "knight_swap",
  "polynomial_multiplication",
  "ransom_note",
  "word_ladder",
)


def problems(
  split: str,
  seed: int,
  family: str,
  config: Mapping[str, Any] | None = None,
  harder: Mapping[str, Any] | None = None,
) -> Iterator[Problem]:
  """Problems of one family without end.

  Args:
    split: train and test use `config`, ood uses `harder`.
    seed: of the draws.
    family: a name of the package, such as `chain_sum`.
    config: changes to the family's own defaults; none if left out.
    harder: the same for ood, which cannot be drawn without it.

  Raises ValueError on an unknown split, family or setting, on a family that
  has no stored answer or is not the same from run to run, and when a split has
  no new problem left.
  """
  splits.check("reasoning_gym", split)
  _check_family(family)
  if split == "ood" and not harder:
    raise ValueError(
      f"reasoning_gym: {family} has no harder settings for the ood split; give "
      "harder={...}, for example more terms or digits"
    )
  chosen = dict((harder if split == "ood" else config) or {})
  items = _items(family, splits.digest(f"{family}/{split}/{seed}"), chosen)
  first = next(items)
  _problem(family, first, 0)  # a family without answers says so at once
  entries = itertools.chain([first], items)
  make = lambda rng, level: _problem(family, next(entries), level)
  levels = [int(split == "ood")]
  return splits.stream(f"reasoning_gym {family}", split, seed, levels, make)


def answer_text(problem: Problem) -> str:
  """The answer alone; in tags, since it may have several lines."""
  return f"<answer>{problem.answer}</answer>"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `<answer>...</answer>` holds the stored answer."""
  return equality.grade_text(problem.answer, extract.tagged(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads, as equal answers share it; or None."""
  return equality.canonical(extract.tagged(text))


def lenient(problem: Problem, text: str) -> Verdict:
  """The same for any marker, or else the last number or line of the text."""
  found = extract.marked(text)
  if found is None and equality.number(problem.answer) is not None:
    found = extract.last_number(extract.conclusion(text))
  elif found is None:
    size = len(problem.answer.strip().splitlines())
    lines = extract.conclusion(text).strip().splitlines()
    found = "\n".join(lines[-size:])
  return equality.grade_text(problem.answer, found)


def _check_family(family: str) -> None:
  """Raises ValueError on a family that cannot be used, and says why."""
  if family not in DATASETS or family == "composite":
    close = ", ".join(sorted(n for n in DATASETS if n[:3] == family[:3]))
    raise ValueError(
      f"reasoning_gym: no family {family!r}; the package has {len(DATASETS)}"
      + (f", of similar name {close}" if close else "")
    )
  if family in UNREPEATABLE:
    raise ValueError(
      f"reasoning_gym: {family} gives other problems under the same seed, so "
      "its splits would overlap from run to run; choose another family"
    )
  if family in UNORDERED and sys.flags.hash_randomization:
    raise ValueError(
      f"reasoning_gym: {family} gives other problems in every process unless "
      "PYTHONHASHSEED=0 is set; set it or choose another family"
    )


def _items(
  family: str, seed: int, config: dict[str, Any]
) -> Iterator[dict[str, Any]]:
  """The package's own entries without end, chunk by chunk."""
  for chunk in itertools.count():
    # The package adds the index to the seed, so chunks lie far apart.
    start = splits.digest(f"{seed}/{chunk}") % 2**31
    try:
      data = gym.create_dataset(family, seed=start, size=CHUNK, **config)
    except (TypeError, AssertionError, ValueError) as error:
      raise ValueError(f"reasoning_gym: {family}: {error}") from error
    for index in range(CHUNK):
      yield data[index]


def _problem(family: str, entry: dict[str, Any], level: int) -> Problem:
  """Our view of an entry; ValueError where it stores no answer."""
  if entry["answer"] is None or not str(entry["answer"]).strip():
    raise ValueError(
      f"reasoning_gym: {family} stores no answer to compare with, only a "
      "scorer, and scorers are not used; choose another family"
    )
  key = f"{family}: {' '.join(entry['question'].split())}"
  meta = {"key": key, "difficulty": level, "family": family}
  return Problem(entry["question"], str(entry["answer"]).strip(), meta)
