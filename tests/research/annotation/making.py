"""Traces and what gates may know, for their tests."""

import types

from research.annotation.gates import About
from research.data.text import ByteTokenizer
from research.tasks import chain
from research.teachers.answers import Answer
from research.types import Problem, Trace


def trace(text, prompt="1a+1", answer="2", sample=0, finish="stop", **meta):
  problem = Problem(prompt, answer, {"key": prompt} | meta)
  return Trace(problem, text, sample, finish)


def about(task=chain, **changes):
  return About(task, ByteTokenizer(), changes.pop("seed", 0), **changes)


def texts(sifted):
  return [t.text for t in sifted.kept]


def reasons(sifted):
  return [reason.name for _, reason in sifted.dropped]


def grader(kinds):
  """A task whose reward says what stands for a text, or raises it."""

  def reward(problem, text):
    del problem
    if isinstance(kinds[text], Exception):
      raise kinds[text]
    return types.SimpleNamespace(kind=kinds[text])

  return types.SimpleNamespace(
    __name__="grader",
    reward=reward,
    answer_text=lambda problem: f"#### {problem.answer}",
  )


class Script:
  """A teacher that says of each message what a function of it says."""

  def __init__(self, say):
    self.say, self.asked = say, []

  def __call__(self, talks):
    for talk in talks:
      self.asked.append(talk)
      said = self.say(talk[-1]["content"])
      yield said if isinstance(said, Answer) else Answer(said, "stop", 3, 4)
    return {}
