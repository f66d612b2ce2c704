import itertools

import pytest

from research.evaluation.pass_at_k import (
  excluded,
  extractions,
  lengths,
  majorities,
  pass_at_k,
  passes,
  truncations,
)


def sample(answer, verdict, number, problem="p", **changes):
  record = {
    "problem": problem,
    "sample": number,
    "completion": "",
    "answer": answer,
    "verdict": verdict,
    "lenient": verdict,
    "tokens": 10,
    "truncated": False,
  }
  return record | changes


def samples(*pairs, problem="p"):
  return [
    sample(answer, verdict, number, problem)
    for number, (answer, verdict) in enumerate(pairs)
  ]


RIGHT, WRONG, NONE = ("4", "correct"), ("5", "wrong"), (None, "unparsed")
LOST, LATE = (None, "error"), (None, "timeout")


@pytest.mark.parametrize(
  ("n", "c", "k", "want"),
  [(8, 2, 1, 0.25), (8, 2, 4, 0.785714), (16, 4, 8, 0.961538), (8, 0, 4, 0)],
)
def test_pass_at_k_goldens(n, c, k, want):
  assert pass_at_k(n, c, k) == pytest.approx(want, abs=5e-7)


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample():
  for n, c in itertools.product(range(1, 7), range(7)):
    for k in range(1, n + 1) if c <= n else ():
      subsets = list(itertools.combinations(range(n), k))
      share = sum(min(s) < c for s in subsets) / len(subsets)
      assert pass_at_k(n, c, k) == pytest.approx(share)


@pytest.mark.parametrize("k", [9, 0, -1])
@pytest.mark.parametrize("c", [0, 3])
def test_k_out_of_range_raises_even_without_a_correct_sample(k, c):
  with pytest.raises(ValueError, match=f"pass@{k} needs"):
    pass_at_k(8, c, k)


@pytest.mark.parametrize("c", [-1, 9])
def test_impossible_counts_raise(c):
  with pytest.raises(ValueError, match="impossible"):
    pass_at_k(8, c, 1)


def test_pass_at_one_is_the_mean_over_samples_of_each_problem():
  table = samples(RIGHT, WRONG, NONE, RIGHT) + samples(WRONG, problem="q")
  assert passes(table, 1) == {"p": 0.5, "q": 0.0}


def test_failed_grading_is_left_out_and_counted_never_a_zero():
  table = samples(RIGHT, LOST, WRONG, LATE) + samples(LOST, problem="q")
  assert passes(table, 1) == {"p": 0.5}
  assert excluded(table) == 3
  as_zero = samples(RIGHT, WRONG, WRONG, WRONG)
  assert passes(as_zero, 1) == {"p": 0.25}


def test_too_few_drawn_raises_but_too_few_graded_leaves_the_problem_out():
  table = samples(RIGHT, LOST) + samples(WRONG, RIGHT, problem="q")
  assert passes(table, 2) == {"q": 1.0}
  assert majorities(table, 2).keys() == {"q"}
  for score in (passes, majorities):
    with pytest.raises(ValueError, match=r"k = 3 .*drew 2"):
      score(table, 3)


def test_strict_and_lenient_differ_by_the_format_alone():
  table = [sample(None, "unparsed", 0, lenient="correct")]
  assert passes(table, 1) == {"p": 0.0}
  assert passes(table, 1, grade="lenient") == {"p": 1.0}
  assert extractions(table) == {"p": 0.0}
  assert extractions(table, grade="lenient") == {"p": 1.0}


def test_the_majority_decides():
  assert majorities(samples(WRONG, RIGHT, RIGHT), 3) == {"p": 1.0}
  assert majorities(samples(RIGHT, WRONG, WRONG), 3) == {"p": 0.0}


def test_a_tie_goes_to_the_answer_that_came_first():
  assert majorities(samples(RIGHT, WRONG), 2) == {"p": 1.0}
  assert majorities(samples(WRONG, RIGHT), 2) == {"p": 0.0}
  backwards = samples(WRONG, RIGHT)[::-1]  # the number counts, not the line
  assert majorities(backwards, 2) == {"p": 0.0}


def test_unparsed_never_wins():
  assert majorities(samples(NONE, NONE, NONE, RIGHT), 4) == {"p": 1.0}
  assert majorities(samples(NONE, NONE), 2) == {"p": 0.0}
  text_kept = samples(("?", "unparsed"), ("?", "unparsed"), RIGHT)
  assert majorities(text_kept, 3) == {"p": 1.0}


def test_failed_samples_have_no_vote_and_fill_no_place():
  table = samples(("5", "error"), ("5", "timeout"), RIGHT)
  assert majorities(table, 1) == {"p": 1.0}
  assert majorities(table, 3) == {}


def test_maj_averages_disjoint_blocks_and_maj_at_one_is_pass_at_one():
  table = samples(RIGHT, RIGHT, WRONG, WRONG, RIGHT)
  assert majorities(table, 2) == {"p": 0.5}  # the fifth has no partner
  assert majorities(table, 1) == passes(table, 1) == {"p": 0.6}


def test_truncation_and_length_speak_of_all_samples():
  table = [
    sample("4", "correct", 0, tokens=4),
    sample(None, "error", 1, tokens=8, truncated=True),
  ]
  assert truncations(table) == {"p": 0.5}
  assert lengths(table) == {"p": 6.0}


def test_bad_tables_raise():
  with pytest.raises(ValueError, match="empty"):
    passes([], 1)
  with pytest.raises(ValueError, match="sample 0 twice"):
    passes(samples(RIGHT) + samples(WRONG), 1)
  with pytest.raises(ValueError, match="'Correct'"):
    passes(samples(("4", "Correct")), 1)
