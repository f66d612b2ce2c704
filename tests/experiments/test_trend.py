"""Figures of a training's end, by hand."""

import json

import pytest

from experiments import run
from tests.experiments import reinforcing

TREND = {"stages": ("answer_only",), "metrics": ("loss", "kl"), "last": 3}


def planned(**changes):
  c = reinforcing.config()
  c["trend"] = {"stage": "experiments.stages.trend"} | TREND | changes
  c["stages"] = (*c["stages"], "trend")
  return run.plan(c)["trend"]


@pytest.fixture
def inputs(tmp_path):
  told = [{"loss": 9.0}, {"loss": 3.0, "kl": 1.0}, {"loss": 2.0}, {"loss": 1.0}]
  lines = "".join(json.dumps(x) + "\n" for x in told)
  (tmp_path / "metrics.jsonl").write_text(lines)
  return {"answer_only": {"folder": str(tmp_path)}}


def test_a_mean_of_the_last_steps(inputs):
  module, cfg = planned(prefix="end/")
  found = module.run(cfg, inputs, None)["summary"]
  # of the last three steps one alone has a kl
  assert found == {"end/answer_only/loss": 2.0, "end/answer_only/kl": 1.0}


def test_a_metric_that_is_not_there(inputs):
  module, cfg = planned(last=2)
  with pytest.raises(ValueError, match=r"no metric 'kl' .* there are loss"):
    module.run(cfg, inputs, None)


def test_a_stage_that_does_not_train(tmp_path):
  module, cfg = planned()
  with pytest.raises(ValueError, match="reads stages that train"):
    module.run(cfg, {"answer_only": {"folder": str(tmp_path)}}, None)


@pytest.mark.parametrize("wrong", [{"last": 0}, {"prefix": "a b"}])
def test_what_cannot_be_asked(wrong):
  with pytest.raises(ValueError, match=r"at least 1|no name and a slash"):
    planned(**wrong)
