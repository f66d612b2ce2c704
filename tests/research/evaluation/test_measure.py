from typing import Any

import pytest

from research.evaluation import intervals
from research.evaluation.measure import compare, measure
from research.evaluation.pass_at_k import passes
from tests.research.evaluation.fake_run import table


def test_every_metric_counts_problems_not_samples():
  found: dict[str, Any] = measure(
    table("distilled", 0.0, 25), (1, 4, 8), seed=0
  )
  assert set(found) == {
    "pass@1", "lenient_pass@1", "pass@4", "maj@4", "pass@8", "maj@8",
    "extracted", "lenient_extracted", "truncated", "tokens", "excluded",
  }  # fmt: skip
  assert found.pop("excluded") == 0
  assert {value["n"] for value in found.values()} == {25}
  assert all(v["low"] <= v["mean"] <= v["high"] for v in found.values())
  assert found["pass@1"]["mean"] < found["pass@4"]["mean"]
  assert found["pass@1"]["mean"] < found["lenient_pass@1"]["mean"]


def test_failed_samples_are_counted_and_a_lost_problem_shows_in_n():
  samples = table("distilled", 0.0, 10)
  for sample in samples[:8]:
    sample["verdict"] = sample["lenient"] = "error"
  found: dict[str, Any] = measure(samples, (8,), seed=0)
  assert found["excluded"] == 8
  assert found["pass@1"]["n"] == found["maj@8"]["n"] == 9
  assert found["tokens"]["n"] == 10


def test_compare_pairs_the_same_problems():
  left, right = table("reinforced", 1.0, 40), table("distilled", 1.0, 40)
  found = compare(left, right, seed=0)["pass@1"]
  alone = [intervals.bootstrap(passes(s, 1), seed=0) for s in (left, right)]
  assert found["mean"] == pytest.approx(alone[0]["mean"] - alone[1]["mean"])
  assert found["n"] == 40
  for zero in compare(left, left, seed=0).values():
    assert (zero["low"], zero["mean"], zero["high"]) == (0, 0, 0)


def test_compare_leaves_out_what_one_side_could_not_grade():
  left, right = table("reinforced", 0.0, 12), table("distilled", 0.0, 12)
  for sample in right[:8]:
    sample["verdict"] = "timeout"
  assert compare(left, right, seed=0)["pass@1"]["n"] == 11
  with pytest.raises(ValueError, match="1 problems are in one table only"):
    compare(left, right[8:], seed=0)


def test_wrong_answers_are_compared_where_both_are_wrong():
  """Of four problems: both wrong, one each, none; by hand."""
  about = {"answer": "1", "completion": "", "truncated": False}

  def side(*samples):
    return [
      about | {"problem": p, "sample": n, "tokens": t, "verdict": v}
      for n, (p, t, v) in enumerate(samples)
    ]

  left = side(
    ("a", 10, "wrong"), ("a", 30, "unparsed"), ("a", 900, "correct"),
    ("b", 500, "wrong"), ("c", 5, "correct"), ("d", 7, "error"),
  )  # fmt: skip
  right = side(
    ("a", 4, "wrong"), ("b", 5, "correct"), ("c", 700, "wrong"),
    ("d", 3, "wrong"),
  )  # fmt: skip
  found = compare(left, right, seed=0)["wrong_tokens"]
  assert found == {"mean": 16, "low": 16, "high": 16, "n": 1}
  solved = side(*((p, 5, "correct") for p in "abcd"))
  assert set(compare(left, solved, seed=0)) == {"pass@1"}
