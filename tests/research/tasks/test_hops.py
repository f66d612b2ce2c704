"""Chains of facts: one answer each, and nothing of the test in training."""

import itertools

import pytest

from research import splits
from research.data import graph
from research.tasks import hops
from research.types import Problem
from tests import archives


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("data")
  archives.made_up(root)
  return root


def take(root, split, n, **args):
  return list(
    itertools.islice(hops.problems(split, 0, data_dir=root, **args), n)
  )


def test_the_trace_quotes_facts_and_ends_in_the_only_answer(root):
  facts = graph.facts("WN18RR", root)
  known = {str(fact) for fact in facts}
  for problem in take(root, "train", 200, hops=(2, 3)):
    *lines, last = hops.trace(problem, 0).splitlines()
    assert set(lines) <= known
    assert last == f"#### {lines[-1].split()[2]}"
    head, *relations = problem.prompt.rstrip("?").split()
    assert len(relations) == len(lines) == problem.meta["difficulty"]
    ends = {head}
    for relation in relations:
      ends = {
        f.tail for f in facts if f.relation == relation and f.head in ends
      }
    assert ends == {problem.answer}


def pairs(problem):
  facts = [fact.split() for fact in problem.meta["facts"]]
  return {(*left[:2], right[1]) for left, right in itertools.pairwise(facts)}


def leaked(root):
  """How many questions of test are answered within traces of train."""
  read = set().union(*map(pairs, take(root, "train", 3000, hops=(2, 4))))
  return sum(pairs(p) <= read for p in take(root, "test", 150, hops=(2, 2)))


def test_no_longer_chain_of_train_answers_a_question_of_test(root):
  assert leaked(root) == 0


def test_the_leak_is_seen_where_chains_are_split_whole(root, monkeypatch):
  monkeypatch.setattr(hops, "_split", splits.assign)
  assert leaked(root) > 0


def test_a_question_of_test_needs_a_pair_that_train_never_has(root):
  read = set().union(*map(pairs, take(root, "train", 3000, hops=(2, 3))))
  for split in ("test", "ood"):
    assert all(pairs(p) - read for p in take(root, split, 100, hops=(3, 3)))


@pytest.mark.parametrize(
  ("text", "strict", "lenient"),
  [
    ("#### abc", "correct", "correct"),
    ("x kind abc\n#### abc ", "correct", "correct"),
    ("it is abc", "unparsed", "correct"),
    ("abc it is", "unparsed", "wrong"),
    ("#### abd", "wrong", "wrong"),
    ("#### abc abc", "wrong", "wrong"),
    ("#### ABC", "wrong", "wrong"),
    ("#### abc\n####", "unparsed", "unparsed"),
  ],
)
def test_grading(text, strict, lenient):
  problem = Problem("x kind?", "abc", {})
  assert hops.reward(problem, text).kind == strict
  assert hops.lenient(problem, text).kind == lenient


def test_what_cannot_be_asked_is_an_error(root, tmp_path):
  with pytest.raises(ValueError, match="2 <= lo <= hi"):
    hops.problems("train", 0, hops=(1, 2), data_dir=root)
  with pytest.raises(ValueError, match="without its facts"):
    hops.trace(Problem("a kind?", "b", {}), 0)
  archives.write(
    tmp_path, "nations", dict.fromkeys(archives.MEMBERS, "a\tr\tb\n")
  )
  with pytest.raises(ValueError, match="no chain of 2 facts"):
    take(tmp_path, "train", 1, graph="nations")
