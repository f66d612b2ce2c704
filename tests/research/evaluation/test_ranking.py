"""The area under the curve, by hand."""

import pytest

from research.evaluation import ranking


def test_auc_by_hand():
  found = {"a": [(3.0, 1), (1.0, 0)], "b": [(2.0, 1), (2.0, 0), (4.0, 0)]}
  told = ranking.auc(found, seed=0)
  # 3 over 1, 2, 4 and 2 over 1, 2, 4: two won, one; one won, one tied
  assert told["mean"] == pytest.approx((2 + 1.5) / 6) and told["n"] == 2
  # of one problem alone the AUC is 1, or that of b
  assert (told["low"], told["high"]) == (0.25, 1.0)
  turned = {k: [(-s, y) for s, y in x] for k, x in found.items()}
  assert ranking.auc(turned, seed=0)["mean"] == pytest.approx(1 - 3.5 / 6)


def test_nothing_to_rank():
  with pytest.raises(ValueError, match="all labels are alike"):
    ranking.auc({"a": [(1.0, 1)], "b": [(2.0, 1)]}, seed=0)
