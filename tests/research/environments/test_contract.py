"""Every environment keeps the contract, from when it exists."""

import importlib
import itertools
import json
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import environments
from research.sampling import episodes
from research.types import Turn

NAMES = sorted(m.name for m in pkgutil.iter_modules(environments.__path__))


def module(name):
  return importlib.import_module(f"research.environments.{name}")


def drawn(name, split="train", seed=0, count=20):
  problems = module(name).problems(split, seed)
  return list(itertools.islice(problems, count))


@pytest.mark.parametrize("name", NAMES)
def test_problems_are_those_of_their_seed_and_split(name):
  assert drawn(name) == drawn(name) != drawn(name, seed=1)
  keys = {s: {p.meta["key"] for p in drawn(name, s)} for s in ("train", "test")}
  assert not keys["train"] & keys["test"] and len(keys["test"]) == 20
  assert json.loads(json.dumps(drawn(name)[0].meta)) == drawn(name)[0].meta
  with pytest.raises(ValueError, match="unknown split"):
    next(module(name).problems("none", 0))


@pytest.mark.parametrize("name", NAMES)
def test_its_own_player_ends_and_is_rewarded(name):
  for seed, problem in enumerate(drawn(name, count=3)):
    played = episodes.recite(module(name), problem, seed)
    assert played.turn.verdict.value is not None
    roles = [m["role"] for m in played.messages]
    assert roles[0] == "user" and roles[-1] == "assistant"
    assert roles[::2] == ["user"] * len(roles[::2])
    again = episodes.recite(module(name), problem, seed)
    assert again.messages == played.messages
    facts = module(name).facts(played.turn.state)
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200, deadline=None)
@given(said=st.lists(st.text(max_size=40), max_size=4))
def test_any_text_is_answered(name, said):
  """Nothing that is written raises, and a state is never changed in place."""
  problem = drawn(name, count=1)[0]
  turn = module(name).start(problem, 0)
  for words in said:
    if turn.verdict is not None:
      break
    once, twice = (module(name).step(turn.state, words) for _ in range(2))
    assert isinstance(once, Turn) and once == twice
    turn = once
  assert turn.verdict is None or turn.verdict.value is not None
