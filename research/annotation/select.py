"""Few traces instead of many: quality, then difficulty, then diversity.

The order is that of s1 (Muennighoff et al. 2025, 2501.19393). What is sound is
for the gates before this one to say.
"""

import collections
import random
from collections.abc import Mapping, Sequence

from research import splits
from research.annotation import gates
from research.annotation.gates import About, Reason, Sifted
from research.data import jsonl
from research.types import Trace


def sift(
  traces: Sequence[Trace],
  about: About,
  *,
  count: int | None = None,
  each: int | None = None,
  rates: Mapping[str, float] | str | None = None,
  easiest: float = 1.0,
  hardest: float = 0.0,
  domain: str | None = None,
) -> Sifted:
  """Keeps `count` traces, deterministic by `about.seed`.

  Quality: of one problem's traces the `each` shortest, in the student's tokens.
  Difficulty: problems that the student solves in `hardest` to `easiest` of its
  attempts; `rates` has a rate by problem key, or is the path of an evaluation's
  samples. Diversity: again and again a domain, all alike likely, and in it a
  trace, the n-th longest half as likely as the one before. A domain is what a
  problem's meta has under that name; without one all are of one domain.
  """
  sizes = {id(t): len(about.tokenizer.encode(t.text or "")) for t in traces}
  size = lambda trace: sizes[id(trace)]
  reasons: dict[int, Reason] = {}
  if each is not None:
    _drop(reasons, traces, _longer(traces, each, size), "another is shorter")
  if rates is not None:
    known = rates if isinstance(rates, Mapping) else pass_rates(rates)
    for trace in _left(traces, reasons):
      rate = known.get(trace.problem.meta["key"])
      if why := _difficulty(rate, easiest, hardest):
        reasons[id(trace)] = why
  left = _left(traces, reasons)
  if count is not None:
    rng = random.Random(splits.digest(f"select/{about.seed}"))
    chosen = _drawn(left, count, domain, size, rng)
    over = {id(trace) for trace in left} - chosen
    _drop(reasons, left, over, "enough without it")
  return gates.split(traces, lambda trace: reasons.get(id(trace)))


def pass_rates(path: str) -> dict[str, float]:
  """The share of correct samples by problem, ungraded ones aside.

  `path` is a file that the stage evaluate wrote: samples/SUITE-STUDENT.jsonl.
  Raises ValueError naming a line that is none of it.
  """
  right, graded = collections.Counter(), collections.Counter()
  for place, record in jsonl.lines(path):
    problem = jsonl.field(record, "problem", place)
    verdict = jsonl.field(record, "verdict", place)
    if verdict not in ("error", "timeout"):
      graded[problem] += 1
      right[problem] += verdict == "correct"
  return {problem: right[problem] / n for problem, n in graded.items()}


def _difficulty(
  rate: float | None, easiest: float, hardest: float
) -> Reason | None:
  """Why a problem of such a pass rate is not for this student."""
  if rate is None:
    return Reason("no pass rate")
  if hardest <= rate <= easiest:
    return None
  name = "too easy" if rate > easiest else "too hard"
  return Reason(name, f"pass rate {rate:.3f}")


def _drop(reasons, traces, which: set[int], why: str) -> None:
  for trace in traces:
    if id(trace) in which:
      reasons[id(trace)] = Reason(why)


def _left(traces, reasons) -> list[Trace]:
  return [trace for trace in traces if id(trace) not in reasons]


def _longer(traces, each: int, size) -> set[int]:
  """Those of a problem behind its `each` shortest."""
  groups = collections.defaultdict(list)
  for trace in traces:
    groups[trace.problem.meta["key"]].append(trace)
  over = [sorted(g, key=size)[each:] for g in groups.values()]
  return {id(trace) for group in over for trace in group}


def _drawn(traces, count: int, domain: str | None, size, rng) -> set[int]:
  """`count` traces, or all of fewer: a domain each time, then one of it."""
  domains = collections.defaultdict(list)
  for trace in sorted(traces, key=size, reverse=True):
    meta = trace.problem.meta
    if domain is not None and domain not in meta:
      raise ValueError(
        f"select: problems have no domain {domain!r}, but {sorted(meta)}"
      )
    domains[meta[domain] if domain else None].append(trace)
  found: set[int] = set()
  while domains and len(found) < count:
    name = rng.choice(list(domains))
    left = domains[name]
    place = 0
    while place + 1 < len(left) and rng.random() < 0.5:
      place += 1
    found.add(id(left.pop(place)))
    if not left:
      del domains[name]
  return found
