"""s1's order: quality, difficulty, diversity; every choice by the seed."""

import collections
import json

import pytest

from research.annotation import select
from tests.research.annotation.making import about, reasons, texts, trace


def many(n, **meta):
  return [trace("x" * (i + 1), prompt=f"p{i}", **meta) for i in range(n)]


def test_of_one_problem_the_shortest():
  sizes = [5, 2, 9, 2, 1]
  traces = [trace("x" * n, sample=i) for i, n in enumerate(sizes)]
  traces.append(trace("x" * 50, prompt="other"))
  found = select.sift(traces, about(), each=2)
  assert texts(found) == ["x" * 2, "x", "x" * 50]
  assert set(reasons(found)) == {"another is shorter"}
  assert texts(select.sift(traces, about(), each=0)) == []


def test_pass_rates(tmp_path):
  rates = {"p0": 0.0, "p1": 0.25, "p2": 0.75, "p3": 1.0}
  found = select.sift(many(5), about(), rates=rates, easiest=0.8, hardest=0.1)
  assert [t.problem.prompt for t in found.kept] == ["p1", "p2"]
  assert reasons(found) == ["too hard", "too easy", "no pass rate"]
  path = tmp_path / "home-student.jsonl"
  rows = [
    {"problem": key, "verdict": "correct" if i < 4 * rate else "wrong"}
    for key, rate in rates.items()
    for i in range(4)
  ]
  rows.append({"problem": "p1", "verdict": "error"})
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert select.pass_rates(str(path)) == rates
  again = select.sift(
    many(5), about(), rates=str(path), easiest=0.8, hardest=0.1
  )
  assert texts(again) == texts(found)


def test_the_seed_decides():
  traces = many(40)
  draw = lambda seed: texts(select.sift(traces, about(seed=seed), count=10))
  assert draw(0) == draw(0) != draw(1)
  assert len(draw(0)) == 10
  assert draw(0) == sorted(draw(0), key=len)  # in their order
  assert texts(select.sift(traces, about(), count=99)) == texts(
    select.sift(traces, about())
  )


def test_domains_are_alike_likely_and_long_traces_likelier():
  """A domain with few gives as many as one with many."""
  traces = many(12, level="rare") + many(400, level="common")
  chosen, ranks = collections.Counter(), collections.Counter()
  for seed in range(60):
    found = select.sift(traces, about(seed=seed), count=4, domain="level")
    for t in found.kept:
      chosen[t.problem.meta["level"]] += 1
    longest = select.sift(many(20), about(seed=seed), count=1).kept[0]
    ranks[20 - len(longest.text)] += 1
  assert abs(chosen["rare"] - 120) < 25  # 3 standard deviations of a coin's
  assert ranks[0] > ranks[1] > ranks[3]
  assert abs(ranks[0] - 30) < 12


def test_all_of_a_domain_may_be_taken():
  traces = many(2, level="a") + many(9, level="b")
  found = select.sift(traces, about(), count=10, domain="level")
  assert len(found.kept) == 10 and reasons(found) == ["enough without it"]


def test_a_domain_that_is_not_there():
  with pytest.raises(ValueError, match=r"no domain 'subject', but .*key"):
    select.sift(many(2), about(), count=1, domain="subject")


def test_a_file_of_other_records(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text('{"problem": "p", "verdict": "wrong"}\n{"problem": "p"}\n')
  with pytest.raises(ValueError, match=r"x.jsonl:2: `verdict`"):
    select.pass_rates(str(path))
