import itertools
import logging
import types

import pytest

from research.tasks import chain, countdown, reasoning_gym
from research.teachers import solver


def _lying(every):
  """The chain task with a solver that errs on each `every`-th problem."""
  calls = itertools.count()

  def trace(problem, seed):
    text = chain.trace(problem, seed)
    return text if next(calls) % every else text + "1"

  return types.SimpleNamespace(
    __name__="lying", trace=trace, reward=chain.reward
  )


def test_traces_are_verified_and_follow_from_the_seed():
  problems = lambda: countdown.problems("train", 0)
  first = list(solver.write(countdown, problems(), 20, seed=5))
  assert len(first) == 20
  for trace in first:
    assert countdown.reward(trace.problem, trace.text) == trace.verdict
    assert trace.verdict.kind == "correct" and trace.rejected == 0
  again = list(solver.write(countdown, problems(), 20, seed=5))
  other = list(solver.write(countdown, problems(), 20, seed=6))
  assert again == first
  assert [t.text for t in other] != [t.text for t in first]


def test_a_rejected_trace_is_counted_logged_and_replaced(caplog):
  caplog.set_level(logging.WARNING)
  problems = chain.problems("train", 0)
  traces = list(solver.write(_lying(every=3), problems, 10, seed=0))
  assert len(traces) == 10
  assert [t.rejected for t in traces[:5]] == [1, 1, 2, 2, 3]
  assert len(caplog.records) == traces[-1].rejected == 5
  assert all(t.verdict.kind == "correct" for t in traces)


def test_a_solver_that_always_errs_is_named():
  problems = chain.problems("train", 0)
  with pytest.raises(ValueError, match="lying wrote 100 traces in a row"):
    list(solver.write(_lying(every=1), problems, 10, seed=0))


def test_problems_that_run_out_are_an_error():
  problems = itertools.islice(chain.problems("train", 0), 5)
  with pytest.raises(ValueError, match="ran out at 5 of n=6 traces, 0 rej"):
    list(solver.write(chain, problems, 6, seed=0))


def test_none_asks_for_a_trace_of_every_problem():
  problems = itertools.islice(chain.problems("train", 0), 5)
  assert len(list(solver.write(chain, problems, None, seed=0))) == 5


def test_no_problem_is_taken_beyond_the_last_trace():
  problems = itertools.count()
  task = types.SimpleNamespace(
    __name__="count",
    trace=lambda problem, seed: str(problem),
    reward=lambda problem, text: chain.Verdict("correct", 1.0),
  )
  list(solver.write(task, problems, 4, seed=0))  # type: ignore
  assert next(problems) == 4


def test_a_task_without_a_solver_is_refused():
  with pytest.raises(ValueError, match="reasoning_gym has no solver"):
    solver.write(reasoning_gym, [], 1, seed=0)


def test_at_least_one_trace_is_asked_for():
  with pytest.raises(ValueError, match="n=0"):
    solver.write(chain, [], 0, seed=0)
