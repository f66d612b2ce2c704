"""What each retrieval finds of a chain of facts."""

import random

import pytest

from research.knowledge import bm25, facts, retrieve
from tests import archives

PASSAGES = (
  "kind axe tool",
  "part tool grip",
  "kind saw tool",
  "part boat keel",
  "kind boat ship",
)
QUESTION = "part kind axe?"
RATIONALE = "kind axe tool\npart tool grip\n#### grip"


@pytest.fixture
def index():
  return bm25.index(PASSAGES)


def test_feedback_reaches_the_fact_that_shares_no_name(index):
  assert 1 not in retrieve.by_text(index, QUESTION, 1)
  assert retrieve.by_text(index, QUESTION, 1) == [0]
  assert 1 in retrieve.by_feedback(index, QUESTION, 2)
  assert set(retrieve.by_text(index, RATIONALE, 2)) == {0, 1}


def test_candidates_come_from_both_and_are_scored_by_the_rationale(index):
  places, scores = retrieve.candidates(index, QUESTION, RATIONALE, 4)
  assert len(set(places)) == len(places) == 4
  assert set(places[:2]) == {0, 1}
  whole = bm25.scores(index, RATIONALE)
  assert scores.tolist() == [whole[place] for place in places]


def test_a_question_of_strange_words_has_no_candidates(index):
  with pytest.raises(ValueError, match="shares a word with 'why'"):
    retrieve.candidates(index, "why", "because", 4)


def test_random_passages_never_hold_the_answer(index):
  for seed in range(50):
    places = retrieve.at_random(index, random.Random(seed), "tool", 2)
    assert len(set(places)) == 2 and set(places) <= {3, 4}
  # Drawn without the answer in mind, they would.
  drawn = {random.Random(seed).randrange(5) for seed in range(50)}
  assert drawn & {0, 1, 2}


def test_too_few_passages_without_the_answer_are_an_error(index):
  with pytest.raises(ValueError, match="not 3 without 'tool'"):
    retrieve.at_random(index, random.Random(0), "tool", 3)


@pytest.mark.parametrize(
  ("answer", "held"),
  [("tool", True), ("Tool", True), ("too", False), ("axe tool", True),
   ("tool axe", False), ("kind tool", False)],
)  # fmt: skip
def test_an_answer_is_held_as_whole_words(answer, held):
  assert retrieve.holds(["part boat keel", "kind axe, tool!"], answer) is held


def test_recall_counts_the_quoted_passages(index):
  needed = retrieve.needed(index, RATIONALE)
  assert needed == set(PASSAGES[:2])
  assert retrieve.recall(PASSAGES[:1], needed) == 0.5
  assert retrieve.recall(PASSAGES, needed) == 1.0
  assert not retrieve.needed(index, "an axe is a tool\n#### grip")


def test_the_order_of_passages_tells_nothing():
  forth, back = (retrieve.before(p, "q?") for p in (PASSAGES, PASSAGES[::-1]))
  assert forth == back
  assert forth.splitlines() == [*sorted(PASSAGES), "q?"]


def test_facts_are_passages(tmp_path):
  archives.made_up(tmp_path, entities=20)
  found = facts.passages("WN18RR", tmp_path)
  assert len(found) == len(archives.triples(entities=20))
  assert all(len(passage.split()) == 3 for passage in found)
