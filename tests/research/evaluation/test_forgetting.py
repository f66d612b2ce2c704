"""Gain and forgetting by hand, and a picture that has its numbers."""

import copy

import numpy as np
import pytest

from research.evaluation import forgetting, intervals

ORDER = ("base", "tuned", "doctor")
COLUMNS = ("home/pass@1", "nats")
# Of four problems each: rates first, then a loss.
CELLS = {
  ("home/pass@1", "base"): [0, 0, 0, 1],
  ("home/pass@1", "tuned"): [1, 1, 0, 1],
  ("home/pass@1", "doctor"): [1, 0, 0, 1],
  ("nats", "base"): [2.0, 3.0, 2.5, 2.5],
  ("nats", "tuned"): [2.5, 3.5, 3.0, 3.5],
  ("nats", "doctor"): [1.0, 2.0, 1.5, 2.0],
}


def keyed(values):
  return {str(i): float(value) for i, value in enumerate(values)}


@pytest.fixture
def found():
  """A summary with every student and every difference to the last."""
  told = {
    forgetting.cell(column, student): intervals.bootstrap(keyed(x), seed=0)
    for (column, student), x in CELLS.items()
  }
  for column in COLUMNS:
    last = keyed(CELLS[column, "doctor"])
    for name in ("base", "tuned"):
      told[forgetting.cell(column, f"doctor_minus_{name}")] = intervals.paired(
        last, keyed(CELLS[column, name]), seed=0
      )
  return told


def test_names():
  assert forgetting.cell("nats", "a") == "a/nats"
  assert forgetting.cell("x/y/nats", "a") == "x/y/a/nats"


def test_by_hand(found):
  rows = forgetting.matrix(found, ORDER, COLUMNS)
  np.testing.assert_allclose(rows, [[0.25, 2.5], [0.75, 3.125], [0.5, 1.625]])
  told = forgetting.measure(found, ORDER, COLUMNS)
  rates, loss = told["home/pass@1"], told["nats"]
  assert (rates["best"], loss["best"]) == ("tuned", "base")
  assert rates["forgetting"]["mean"] == 0.25  # 0.75 - 0.5
  assert rates["gain"]["mean"] == -0.25
  assert loss["forgetting"]["mean"] == -0.875  # it never was as good before
  assert loss["gain"]["mean"] == 1.5  # from 3.125 to 1.625
  for values in told.values():
    for kind in ("gain", "forgetting"):
      value = values[kind]
      assert value["low"] <= value["mean"] <= value["high"]
      assert value["n"] == 4


def test_a_difference_may_stand_the_other_way_round(found):
  turned = {
    forgetting.cell(column, f"{name}_minus_doctor"): intervals.paired(
      keyed(CELLS[column, name]), keyed(CELLS[column, "doctor"]), seed=0
    )
    for column in COLUMNS
    for name in ("base", "tuned")
  }
  kept = {n: v for n, v in found.items() if "_minus_" not in n} | turned
  one, other = (forgetting.measure(x, ORDER, COLUMNS) for x in (found, kept))
  for column in COLUMNS:
    for kind in ("gain", "forgetting"):
      for end in ("mean", "low", "high"):
        np.testing.assert_allclose(
          one[column][kind][end], other[column][kind][end], atol=0.2
        )
      assert one[column][kind]["mean"] == other[column][kind]["mean"]


@pytest.mark.parametrize("lost", [0.0, 0.25])
def test_the_last_student_has_forgotten_what_it_lost(found, lost):
  """The control is one that stands still: it has forgotten nothing."""
  still = copy.deepcopy(found)
  for column in COLUMNS:
    best = forgetting.measure(found, ORDER, COLUMNS)[column]["best"]
    worse = intervals.bootstrap(keyed([-lost] * 4), seed=0)
    still[forgetting.cell(column, f"doctor_minus_{best}")] = worse
  for column, told in forgetting.measure(still, ORDER, COLUMNS).items():
    better = -1 if "nats" in column else 1  # fewer nats are no loss
    assert told["forgetting"]["mean"] == better * lost


def test_what_is_missing_is_named(found):
  for name in ("home/tuned/pass@1", "home/doctor_minus_tuned/pass@1"):
    less = {n: v for n, v in found.items() if n != name}
    with pytest.raises(ValueError, match=name):
      forgetting.measure(less, ORDER, COLUMNS)
  with pytest.raises(ValueError, match="nothing to forget"):
    forgetting.measure(found, ("base",), COLUMNS)
  found["base/nats"] |= {"mean": float("nan")}
  with pytest.raises(ValueError, match="'base/nats' is nan"):
    forgetting.matrix(found, ORDER, COLUMNS)


def test_the_picture_has_every_number(found, tmp_path):
  path = tmp_path / "forgetting.svg"  # in which text is left as comments
  forgetting.draw(path, found, ORDER, COLUMNS)
  drawn = path.read_text()
  for (column, student), values in CELLS.items():
    told = found[forgetting.cell(column, student)]
    assert f"<!-- {np.mean(values):.3f} -->" in drawn
    assert f"<!-- [{told['low']:.3f}, {told['high']:.3f}] -->" in drawn
    assert f"<!-- {student} -->" in drawn
  assert "less is better" in drawn and "more is better" in drawn
