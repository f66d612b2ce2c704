"""What k samples a problem say: pass@k, maj@k, extraction, truncation.

A table of samples is a list of records, one a sample:

  problem    the problem's canonical key (str)
  sample     its number among the samples of that problem (int)
  completion what the model wrote
  answer     what strict extraction found (str), or None
  verdict    kind under strict extraction   correct wrong unparsed timeout error
  lenient    kind under lenient extraction  likewise
  tokens     tokens written (int)
  truncated  whether the budget cut it off (bool)

A sample whose grading failed (`timeout`, `error`) is excluded and counted,
never scored as zero. Every function returns one value a problem, so that
`intervals` can resample problems; a problem that cannot be scored is absent.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Sample = Mapping[str, Any]
Grade = Literal["verdict", "lenient"]

SCORED = frozenset({"correct", "wrong", "unparsed"})
FAILED = frozenset({"timeout", "error"})


def pass_at_k(n: int, c: int, k: int) -> float:
  """The chance that k of n samples, c of them correct, hold a correct one.

  1 - C(n - c, k) / C(n, k): unbiased. Raises ValueError where k > n, for n
  samples cannot tell. Chen et al. 2021, equation 1.
  """
  if not 0 <= c <= n:
    raise ValueError(f"pass@k: {c} correct of {n} samples is impossible")
  if not 1 <= k <= n:
    raise ValueError(
      f"pass@{k} needs at least {max(k, 1)} samples a problem, got {n}; "
      "draw more samples or ask for a smaller k >= 1"
    )
  return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def by_problem(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
  """Samples grouped by problem, in the order of their numbers.

  Raises ValueError where the table is empty or holds a sample twice.
  """
  if not samples:
    raise ValueError("the table of samples is empty; nothing was evaluated")
  groups: dict[str, list[Sample]] = {}
  for sample in sorted(samples, key=lambda s: (s["problem"], s["sample"])):
    group = groups.setdefault(sample["problem"], [])
    if group and group[-1]["sample"] == sample["sample"]:
      raise ValueError(
        f"problem {sample['problem']!r} holds sample {sample['sample']} twice"
      )
    group.append(sample)
  return groups


def passes(
  samples: Sequence[Sample], k: int, *, grade: Grade = "verdict"
) -> dict[str, float]:
  """Each problem's pass@k; for k = 1 the mean over its samples.

  Raises ValueError where a problem drew fewer than k samples. A problem with
  k drawn but fewer graded cannot be scored and is absent.
  """
  return {
    problem: pass_at_k(len(kinds), kinds.count("correct"), k)
    for problem, group in by_problem(samples).items()
    if len(kinds := _kinds(_enough(group, k), grade)) >= k
  }


def majorities(samples: Sequence[Sample], k: int) -> dict[str, float]:
  """Each problem's maj@k: is the answer that most of k samples gave correct?

  The mean over the n // k disjoint blocks of k consecutive graded samples, so
  maj@1 is pass@1. Ties go to the answer that came first (the lowest sample
  number). What could not be parsed has no vote and never wins; a block where
  nothing parsed is wrong. Absences and errors as in `passes`.
  """
  values = {}
  for problem, group in by_problem(samples).items():
    graded = [s for s in _enough(group, k) if _kind(s, "verdict") in SCORED]
    blocks = [graded[k * b : k * b + k] for b in range(len(graded) // k)]
    if blocks:
      values[problem] = sum(map(_vote, blocks)) / len(blocks)
  return values


def extractions(
  samples: Sequence[Sample], *, grade: Grade = "verdict"
) -> dict[str, float]:
  """Each problem's share of graded samples in which an answer was found."""
  groups = by_problem(samples).items()
  kinds = {problem: _kinds(group, grade) for problem, group in groups}
  return {
    problem: 1.0 - found.count("unparsed") / len(found)
    for problem, found in kinds.items()
    if found
  }


def truncations(samples: Sequence[Sample]) -> dict[str, float]:
  """Each problem's share of samples cut off by the token budget."""
  return _means(samples, lambda sample: float(sample["truncated"]))


def lengths(samples: Sequence[Sample]) -> dict[str, float]:
  """Each problem's mean number of tokens a sample."""
  return _means(samples, lambda sample: float(sample["tokens"]))


def wrong_lengths(samples: Sequence[Sample]) -> dict[str, float]:
  """Each problem's mean number of tokens a wrong sample, where there is one."""
  wrong = [s for s in samples if _kind(s, "verdict") in ("wrong", "unparsed")]
  return lengths(wrong) if wrong else {}


def excluded(samples: Sequence[Sample], *, grade: Grade = "verdict") -> int:
  """How many samples the grader failed on (timeout or error)."""
  return sum(_kind(sample, grade) in FAILED for sample in samples)


def _means(
  samples: Sequence[Sample], value: Callable[[Sample], float]
) -> dict[str, float]:
  return {
    problem: sum(map(value, group)) / len(group)
    for problem, group in by_problem(samples).items()
  }


def _kind(sample: Sample, grade: Grade) -> str:
  kind = sample[grade]
  if kind not in SCORED | FAILED:
    raise ValueError(
      f"{grade} {kind!r} of problem {sample['problem']!r} is none of "
      f"{', '.join(sorted(SCORED | FAILED))}"
    )
  return kind


def _kinds(group: Sequence[Sample], grade: Grade) -> list[str]:
  kinds = [_kind(sample, grade) for sample in group]
  return [kind for kind in kinds if kind in SCORED]


def _enough(group: Sequence[Sample], k: int) -> Sequence[Sample]:
  if not 1 <= k <= len(group):
    raise ValueError(
      f"k = {k} for problem {group[0]['problem']!r}, which drew {len(group)} "
      "samples; draw more samples or ask for a smaller k >= 1"
    )
  return group


def _vote(block: Sequence[Sample]) -> float:
  # Counter keeps the order of insertion, and max takes the first of equals.
  votes = Counter(s["answer"] for s in block if _parsed(s))
  if not votes:
    return 0.0
  winner = max(votes, key=votes.__getitem__)
  first = next(s for s in block if _parsed(s) and s["answer"] == winner)
  return float(first["verdict"] == "correct")


def _parsed(sample: Sample) -> bool:
  return sample["answer"] is not None and sample["verdict"] != "unparsed"
