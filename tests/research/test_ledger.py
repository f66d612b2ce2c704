"""The ledger by hand: curves, slopes, who is weak, and who gets how many."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import ledger


def test_accuracy_by_name_and_period():
  answers = [("a", 0, True), ("a", 9, False), ("b", 3, False), ("a", 25, True)]
  assert ledger.curves(answers, 10) == {
    "a": {0: F(1, 2), 20: F(1)},  # nothing from 10 to 19
    "b": {0: F(0)},
  }
  assert ledger.curves(answers)["a"] == {0: F(1), 9: F(0), 25: F(1)}
  back = ledger.curves(reversed(answers), 10)
  assert list(back["a"]) == [0, 20], "periods are in order"


@pytest.mark.parametrize(
  ("curve", "slope"),
  [
    ({0: F(1, 4), 1: F(1, 2)}, F(1, 4)),
    ({0: F(1, 4), 10: F(1, 2)}, F(1, 40)),
    # mean 1/3: (-1)(1/6) + 0(1/6) + 1(-1/3) over 2
    ({0: F(1, 2), 1: F(1, 2), 2: F(0)}, F(-1, 4)),
    ({3: F(1, 2)}, F(0)),
    ({0: F(1), 1: F(0), 2: F(0), 3: F(1)}, F(0)),
  ],
)
def test_slopes_by_hand(curve, slope):
  assert ledger.slope(curve) == slope


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.dictionaries(st.integers(0, 99), st.integers(0, 8), min_size=2))
def test_a_slope_is_that_of_least_squares(counts):
  curve = {step: F(n, 8) for step, n in sorted(counts.items())}
  steps, rates = list(curve), [float(y) for y in curve.values()]
  fitted = np.polyfit(steps, rates, 1)[0]
  assert float(ledger.slope(curve)) == pytest.approx(fitted, abs=1e-9)


def test_what_is_level_does_not_fall():
  """Floats say of this very curve that it does."""
  curve = {0: F(2, 10), 10: F(3, 10), 20: F(0), 30: F(3, 10)}
  mean = sum(map(float, curve.values())) / 4
  assert sum((t - 15) * (float(y) - mean) for t, y in curve.items()) < 0
  assert ledger.slope(curve) == 0 and not ledger.weak(curve)


@pytest.mark.parametrize(
  ("rates", "weak"),
  [
    ((0.25, 0.125), True),
    ((0.25, 0.25), False),  # level
    ((0.125, 0.25), False),  # it learns
    ((0.5, 0.125), False),  # it was solved half of the time
    ((0.0, 0.0, 0.0), False),  # out of reach
    ((0.25,), False),
    ((0.375, 0.0, 0.25), True),
    ((0.25, 0.0, 0.375), False),
  ],
)
def test_who_is_weak(rates, weak):
  curve = {step: F(y) for step, y in enumerate(rates)}
  assert ledger.weak(curve) is weak


def test_thresholds_are_arguments():
  curve = {0: F(1, 2), 1: F(1, 4)}
  assert not ledger.weak(curve)
  assert ledger.weak(curve, ceiling=0.6)
  assert not ledger.weak(curve, ceiling=0.6, falling=-0.25)  # it is no less
  assert ledger.weak(curve, ceiling=0.6, falling=-0.2)


def test_rates_of_groups():
  groups = {"p": "a", "q": "a", "r": "b", "s": "c"}
  weak = {"p": True, "q": False, "r": True}
  assert ledger.rates(weak, groups) == {"a": F(1, 2), "b": F(1)}


MANY = dict.fromkeys("abc", 100)


@pytest.mark.parametrize(
  ("shares", "supply", "count", "given"),
  [
    ({"a": F(1, 2), "b": F(1, 4), "c": F(1, 4)}, MANY, 8, (4, 2, 2)),
    # 10/7, 20/7, 40/7: the remainders are 3/7, 6/7 and 5/7
    ({"a": 0.1, "b": 0.2, "c": 0.4}, MANY, 10, (1, 3, 6)),
    ({"a": 1, "b": 1, "c": 1}, MANY, 4, (2, 1, 1)),  # a tie
    ({"a": 1}, MANY, 4, (4, 0, 0)),
    ({}, MANY, 6, (2, 2, 2)),  # nothing falls short
    ({"a": 1, "z": 9}, MANY, 4, (4, 0, 0)),  # none of z
    # 6 of a are wanted and 2 are there: b and c have 4 more, by 1 to 1
    ({"a": 3, "b": 1, "c": 1}, {"a": 2, "b": 9, "c": 9}, 10, (2, 4, 4)),
    ({"a": 1}, {"a": 2, "b": 9, "c": 9}, 10, (2, 4, 4)),
    ({"a": 1, "b": 1}, MANY, 0, (0, 0, 0)),
  ],
)
def test_allotments_by_hand(shares, supply, count, given):
  assert tuple(ledger.allot(shares, supply, count).values()) == given


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
  shares=st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1)),
  supply=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 30)),
  part=st.floats(0, 1),
)
def test_all_is_allotted_and_no_more_than_there_is(shares, supply, part):
  count = int(sum(supply.values()) * part)
  given = ledger.allot(shares, supply, count)
  assert sum(given.values()) == count and set(given) == set(supply)
  assert all(given[name] <= supply[name] for name in given)
  turned = dict(reversed(supply.items()))
  assert ledger.allot(shares, turned, count) == given, "order matters"
  paid = [n for n in given if not shares.get(n) and given[n]]
  full = [n for n in given if shares.get(n) and given[n] < supply[n]]
  assert not (paid and full), "the shares had more to give"


def test_allotments_that_cannot_be():
  with pytest.raises(ValueError, match="11 wanted of 10 in all"):
    ledger.allot({"a": 1}, {"a": 10}, 11)
  with pytest.raises(ValueError, match="below 0"):
    ledger.allot({"a": -1}, {"a": 10}, 1)
