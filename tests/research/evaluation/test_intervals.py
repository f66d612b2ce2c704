import numpy as np
import pytest

from research.evaluation import intervals


def keyed(values):
  return {f"p{at}": float(value) for at, value in enumerate(values)}


def test_wilson_goldens():
  # R's prop.test(15, 30, correct=FALSE) and prop.test(10, 10, ...).
  half = intervals.wilson(15, 30)
  assert (half["low"], half["high"]) == pytest.approx(
    (0.3315, 0.6685), abs=1e-4
  )
  sure = intervals.wilson(10, 10)
  assert (sure["low"], sure["high"]) == pytest.approx((0.7225, 1.0), abs=1e-4)
  assert (half["mean"], half["n"]) == (0.5, 30)


def test_thirty_problems_have_the_published_half_width():
  values = keyed([1] * 15 + [0] * 15)
  for found in (
    intervals.proportion(values, seed=0),
    intervals.bootstrap(values, seed=0),
  ):
    half = (found["high"] - found["low"]) / 2
    assert half == pytest.approx(0.179, rel=0.1)


def test_wilson_covers():
  rng = np.random.default_rng(0)
  for rate, n in ((0.5, 40), (0.95, 60), (0.03, 200)):
    found = [intervals.wilson(int(c), n) for c in rng.binomial(n, rate, 1000)]
    covered = np.mean([i["low"] <= rate <= i["high"] for i in found])
    assert 0.92 <= covered <= 0.985


def draw(rng, problems, k):
  """Shares of k samples correct; problems differ much in difficulty."""
  chances = rng.beta(0.4, 0.4, problems)  # their mean is 0.5
  return rng.binomial(k, chances), chances


def test_bootstrap_over_problems_covers_where_over_samples_does_not(
  monkeypatch,
):
  monkeypatch.setattr(intervals, "RESAMPLES", 400)
  rng, k, trials = np.random.default_rng(1), 8, 150
  covered = {"problems": 0, "samples": 0}
  for trial in range(trials):
    counts, _ = draw(rng, 50, k)
    flat = np.concatenate([[1] * c + [0] * (k - c) for c in counts])
    for unit, values in (("problems", counts / k), ("samples", flat)):
      found = intervals.bootstrap(keyed(values), seed=trial)
      covered[unit] += found["low"] <= 0.5 <= found["high"]
  assert 0.89 <= covered["problems"] / trials <= 0.99
  assert covered["samples"] / trials <= 0.75


def test_paired_covers_and_is_narrower_than_unpaired(monkeypatch):
  monkeypatch.setattr(intervals, "RESAMPLES", 400)
  rng, covered, trials = np.random.default_rng(2), 0, 150
  for trial in range(trials):
    chances = rng.beta(0.4, 0.4, 60) * 0.9
    left = keyed(rng.binomial(8, chances + 0.1) / 8)
    right = keyed(rng.binomial(8, chances) / 8)
    found = intervals.paired(left, right, seed=trial)
    covered += found["low"] <= 0.1 <= found["high"]
  assert 0.89 <= covered / trials <= 0.99
  alone = intervals.bootstrap(left, seed=0)
  width = lambda i: i["high"] - i["low"]
  assert width(found) < 0.7 * width(alone)


def test_n_counts_problems_and_the_seed_decides():
  values = keyed(np.linspace(0, 1, 37))
  first = intervals.bootstrap(values, seed=3)
  assert first["n"] == 37
  assert first == intervals.bootstrap(values, seed=3)
  assert first != intervals.bootstrap(values, seed=4)
  assert first["low"] < first["mean"] < first["high"]


def test_blocks_of_memory_do_not_change_the_result(monkeypatch):
  values = keyed(np.linspace(0, 1, 20))
  whole = intervals.bootstrap(values, seed=0)
  monkeypatch.setattr(intervals, "CELLS", 700)
  assert intervals.bootstrap(values, seed=0) == whole


def test_proportion_never_claims_certainty_from_all_correct():
  found = intervals.proportion(keyed([1] * 50), seed=0)
  assert found["low"] == pytest.approx(0.9287, abs=1e-4)
  assert intervals.bootstrap(keyed([1] * 50), seed=0)["low"] == 1.0
  mixed = keyed([1.0, 0.5, 0.25, 0.0])
  assert intervals.proportion(mixed, seed=0) == intervals.bootstrap(
    mixed, seed=0
  )


def test_pairing_is_by_key_and_odd_keys_raise():
  left = {"a": 1.0, "b": 0.0, "c": 0.5}
  right = {"c": 0.25, "b": 0.0, "a": 0.5}
  found = intervals.paired(left, right, seed=0)
  assert found["mean"] == pytest.approx(0.25)
  assert found["n"] == 3
  with pytest.raises(ValueError, match=r"1 problems .*'c'"):
    intervals.paired(left, {"a": 0.0, "b": 0.0}, seed=0)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: intervals.wilson(0, 0), "n >= 1"),
    (lambda: intervals.wilson(5, 4), "5 of 4"),
    (lambda: intervals.bootstrap({}, seed=0), "no problems"),
    (lambda: intervals.bootstrap({"a": float("nan")}, seed=0), "not finite"),
    (lambda: intervals.proportion({"a": 1.5}, seed=0), r"\[0, 1\]"),
  ],
)
def test_bad_input_raises(call, message):
  with pytest.raises(ValueError, match=message):
    call()
