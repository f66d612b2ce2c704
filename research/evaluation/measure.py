"""From a table of samples to the lines of summary.json.

A line's name is `student/metric` or `suite/student/metric`; these functions
give the metrics of one student on one suite, and the caller adds the prefix.
"""

from collections.abc import Sequence

from research.evaluation import intervals
from research.evaluation.intervals import Interval
from research.evaluation.pass_at_k import (
  Sample,
  by_problem,
  excluded,
  extractions,
  lengths,
  majorities,
  passes,
  truncations,
  wrong_lengths,
)


def measure(
  samples: Sequence[Sample], ks: Sequence[int], *, seed: int
) -> dict[str, Interval | int]:
  """Every metric of one table of samples, by name.

  `pass@k` and `maj@k` for each k (maj@1 is pass@1 and left out),
  `lenient_pass@1`, `extracted` and `lenient_extracted`, `truncated`, `tokens`
  (a sample), and `excluded`, the number of samples whose grading failed.
  Raises ValueError as `pass_at_k` and `intervals` do.
  """
  rates = {"pass@1": passes(samples, 1)}
  rates["lenient_pass@1"] = passes(samples, 1, grade="lenient")
  for k in sorted(set(ks) - {1}):
    rates[f"pass@{k}"] = passes(samples, k)
    rates[f"maj@{k}"] = majorities(samples, k)
  rates["extracted"] = extractions(samples)
  rates["lenient_extracted"] = extractions(samples, grade="lenient")
  rates["truncated"] = truncations(samples)
  found: dict[str, Interval | int] = {
    name: intervals.proportion(values, seed=seed)
    for name, values in rates.items()
  }
  found["tokens"] = intervals.bootstrap(lengths(samples), seed=seed)
  found["excluded"] = excluded(samples)
  return found


def compare(
  left: Sequence[Sample],
  right: Sequence[Sample],
  *,
  seed: int,
) -> dict[str, Interval]:
  """The paired differences left - right on the same problems, by metric.

  `pass@1`, and `wrong_tokens`, the length of a wrong sample: of problems that
  both got wrong, for whoever solves more is left with the harder ones; without
  such a problem it is absent. A problem that one side could not score (its
  grading failed) is left out on both, and `n` shows it. Raises ValueError
  where the problems differ.
  """
  lone = sorted(by_problem(left).keys() ^ by_problem(right).keys())
  if lone:
    raise ValueError(
      f"compare: {len(lone)} problems are in one table only, such as "
      f"{lone[0]!r}; evaluate both checkpoints on the same problems"
    )
  of = {"pass@1": lambda side: passes(side, 1), "wrong_tokens": wrong_lengths}
  found = {}
  for metric, value in of.items():
    a, b = value(left), value(right)
    if both := a.keys() & b.keys():
      kept = [{key: side[key] for key in both} for side in (a, b)]
      found[metric] = intervals.paired(kept[0], kept[1], seed=seed)
  return found
