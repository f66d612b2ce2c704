"""Problems of a stage: a pool, and the part of it that belongs to a step."""

import dataclasses
from collections import Counter

import pytest

from experiments import pools
from experiments.settings import Problems
from research.types import Problem

CHAIN = Problems("research.tasks.chain", "train", {"lengths": (2, 3)})
SEVEN = [Problem(str(i), "", {"key": str(i)}) for i in range(7)]


def test_a_pool_is_the_beginning_of_its_split():
  found = pools.pool(CHAIN, 9, seed=3, inputs={})
  assert len(found) == 9
  assert found[:4] == pools.pool(CHAIN, 4, seed=3, inputs={})
  assert found != pools.pool(CHAIN, 9, seed=4, inputs={})


def test_a_pool_ends_with_its_split(monkeypatch):
  from research.tasks import chain

  monkeypatch.setattr(chain, "problems", lambda *_, **__: iter(SEVEN))
  assert pools.pool(CHAIN, 9, seed=0, inputs={}) == SEVEN
  monkeypatch.setattr(chain, "problems", lambda *_, **__: iter(()))
  with pytest.raises(ValueError, match=r"chain: the split 'train' is empty"):
    pools.pool(CHAIN, 9, seed=0, inputs={})


def test_a_stage_writes_problems_for_another(tmp_path):
  pools.write(tmp_path / "some.jsonl", SEVEN)
  told = dataclasses.replace(CHAIN, path="{before}/some.jsonl")
  inputs = {"before": {"folder": str(tmp_path)}}
  assert pools.pool(told, 5, seed=0, inputs=inputs) == SEVEN[:5]
  with (tmp_path / "some.jsonl").open("a") as file:
    file.write('{"prompt": "", "answer": "", "meta": {}, "begun": ""}\n')
  with pytest.raises(ValueError, match=r"some.jsonl:8: a problem has .* a key"):
    pools.pool(told, 9, seed=0, inputs=inputs)


def test_problems_are_asked_in_other_words():
  told = dataclasses.replace(CHAIN, ask="think {hard} first: {prompt}")
  plain, asked = (pools.pool(x, 3, seed=0, inputs={}) for x in (CHAIN, told))
  for one, other in zip(plain, asked, strict=True):
    assert other.prompt == f"think {{hard}} first: {one.prompt}"
    assert dataclasses.replace(other, prompt=one.prompt) == one
  with pytest.raises(ValueError, match="'think' has no "):
    dataclasses.replace(CHAIN, ask="think")


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_each_epoch_takes_every_problem_once(count):
  steps = [pools.of_step(SEVEN, 0, step, count) for step in range(7 * 3)]
  taken = [problem.prompt for step in steps for problem in step]
  for start in range(0, len(taken) - 6, 7):
    assert Counter(taken[start : start + 7]) == Counter("0123456")
  assert taken[:7] != taken[7:14], "no new order in a new epoch"


def test_a_step_knows_its_problems():
  alone = pools.of_step(SEVEN, 5, 11, 3)
  for step in range(12):
    last = pools.of_step(SEVEN, 5, step, 3)
  assert alone == last
  orders = {tuple(pools.of_step(SEVEN, s, 0, 7)) and s for s in range(3)}
  assert len(orders) == 3
  assert pools.of_step(SEVEN, 5, 0, 7) != pools.of_step(SEVEN, 6, 0, 7)
