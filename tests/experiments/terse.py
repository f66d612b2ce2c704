"""A teacher that writes the answer and nothing else, as a plug-in."""

from research.types import Trace


def write(task, problems, n, seed):
  del seed
  for problem in problems:
    for sample in range(n):
      yield Trace(problem, task.answer_text(problem), sample, "stop")
