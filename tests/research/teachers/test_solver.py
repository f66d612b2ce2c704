import itertools
import types

import pytest

from research import splits
from research.tasks import chain, countdown, gsm8k, reasoning_gym
from research.teachers import solver


def some(task, n):
  return list(itertools.islice(task.problems("train", 0), n))


def test_traces_follow_from_the_seed_and_the_sample():
  problems = some(countdown, 10)
  first = list(solver.write(countdown, problems, 2, seed=5))
  assert [(t.problem, t.sample) for t in first] == [
    (problem, sample) for problem in problems for sample in (0, 1)
  ]
  assert list(solver.write(countdown, problems, 2, seed=5)) == first
  other = list(solver.write(countdown, problems, 2, seed=6))
  texts = lambda traces: [trace.text for trace in traces]
  assert texts(other) != texts(first)
  assert texts(first[::2]) != texts(first[1::2])
  # What a first sample says does not depend on how many follow.
  assert list(solver.write(countdown, problems, 1, seed=5)) == first[::2]


def test_a_first_sample_has_the_seed_of_its_place():
  """The stream of seeds is part of every kept result."""
  seeds = []
  task = types.SimpleNamespace(
    __name__="t", trace=lambda _, seed: seeds.append(seed)
  )
  list(solver.write(task, some(chain, 2), 2, seed=7))
  assert seeds == [splits.digest(x) for x in ("7/0", "7/0/1", "7/1", "7/1/1")]


def test_a_problem_without_solution_is_an_error_among_others():
  row = {"question": "How many?", "answer": "2+2=4\n#### 4"}
  whole, bare = (
    gsm8k.problem_of(row),
    gsm8k.problem_of(row | {"answer": "#### 4"}),
  )
  traces = list(solver.write(gsm8k, [whole, bare, whole], 1, seed=0))
  assert [t.finish for t in traces] == ["stop", "error", "stop"]
  assert traces[1].text is None and "no worked answer" in traces[1].error


def test_a_task_without_a_solver_is_refused():
  with pytest.raises(ValueError, match="reasoning_gym has no solver"):
    solver.write(reasoning_gym, [], 1, seed=0)
