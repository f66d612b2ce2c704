import itertools
import types

import pytest

from research.tasks import reasoning_gym
from research.types import Problem

META = {"key": "k", "difficulty": 0, "family": "f"}


def _take(split, n, family, **args):
  drawn = reasoning_gym.problems(split, 0, family=family, **args)
  return list(itertools.islice(drawn, n))


@pytest.mark.parametrize(
  "family", ["basic_arithmetic", "letter_counting", "mini_sudoku", "gcd"]
)
def test_any_family_by_name(family):
  for problem in _take("train", 5, family):
    text = reasoning_gym.answer_text(problem)
    assert reasoning_gym.reward(problem, text).kind == "correct"
    assert reasoning_gym.lenient(problem, problem.answer).kind == "correct"


def test_settings_reach_the_generator():
  config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
  harder = {"min_terms": 9, "max_terms": 9}
  args = {"config": config, "harder": harder}
  for split, terms in (("train", 2), ("test", 2), ("ood", 9)):
    for problem in _take(split, 5, "chain_sum", **args):
      signs = problem.prompt.count(" + ") + problem.prompt.count(" - ")
      assert signs == terms - 1


def test_hard_training_problems_share_no_key_with_ood():
  small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
  train = _take("train", 500, "chain_sum", config=small)
  ood = _take("ood", 15, "chain_sum", harder=small)
  keys = [{p.meta["key"] for p in drawn} for drawn in (train, ood)]
  assert not keys[0] & keys[1]


def test_ood_asks_for_harder_settings():
  with pytest.raises(ValueError, match="harder="):
    _take("ood", 1, "chain_sum")


@pytest.mark.parametrize(
  "family",
  ["boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"],
)
def test_a_family_without_stored_answers_is_refused(family):
  with pytest.raises(ValueError, match="stores no answer"):
    reasoning_gym.problems("train", 0, family=family)


@pytest.mark.parametrize("family", ["codeio", "list_functions"])
def test_a_family_that_does_not_repeat_is_refused(family):
  with pytest.raises(ValueError, match="under the same seed"):
    reasoning_gym.problems("train", 0, family=family)


def test_a_family_that_needs_a_fixed_hash_seed_says_so(monkeypatch):
  flags = types.SimpleNamespace(hash_randomization=1)
  monkeypatch.setattr(reasoning_gym.sys, "flags", flags)
  with pytest.raises(ValueError, match="PYTHONHASHSEED=0"):
    reasoning_gym.problems("train", 0, family="word_ladder")
  flags.hash_randomization = 0
  assert _take("train", 2, "ransom_note")


@pytest.mark.parametrize("family", ["chain_sums", "nothing", "composite"])
def test_an_unknown_family_is_named(family):
  with pytest.raises(ValueError, match=f"no family '{family}'"):
    reasoning_gym.problems("train", 0, family=family)


@pytest.mark.parametrize(
  ("config", "said"),
  [({"terms": 3}, "terms"), ({"min_digits": 9, "max_digits": 2}, "digits")],
)
def test_impossible_settings_are_refused(config, said):
  with pytest.raises(ValueError, match=f"chain_sum: .*{said}"):
    reasoning_gym.problems("train", 0, family="chain_sum", config=config)


@pytest.mark.parametrize(
  ("gold", "answer", "kind"),
  [
    ("red", "red", "correct"),
    ("red", " red \n", "correct"),
    ("red", "Red", "wrong"),
    ("red", "red, blue", "wrong"),  # a list of all is no answer
    ("red", "the red one", "wrong"),  # holding the gold is not enough
    ("red", "", "unparsed"),
    ("0.50", "1/2", "correct"),
    ("12", "112", "wrong"),
    ("0", "nan", "wrong"),
    ("1 2\n3 4", "1  2 \n 3 4", "correct"),
    ("1 2\n3 4", "1 2 3 4", "wrong"),
    ("12", "__import__('os')", "wrong"),
  ],
)
def test_the_stored_answer_and_nothing_else(gold, answer, kind):
  problem = Problem("p", gold, META)
  text = f"so <answer>{answer}</answer>"
  assert reasoning_gym.reward(problem, text).kind == kind
