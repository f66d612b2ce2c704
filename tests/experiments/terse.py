"""A teacher that writes the answer and nothing else, as a plug-in."""

from research.teachers.solver import Trace


def write(task, problems, n, seed):
  del n, seed
  for problem in problems:
    text = task.answer_text(problem)
    yield Trace(problem, text, task.reward(problem, text), 0)
