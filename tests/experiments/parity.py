"""Chains of another seed, rewarded where the answer has an even length.

A model that knows nothing earns this at times, so reinforcement has a gradient
from its first step on.
"""

from research.tasks import chain
from research.types import Verdict

SPLITS = chain.SPLITS
trace = chain.trace
answer_text = chain.answer_text
extracted = chain.extracted
lenient = chain.lenient


def problems(split, seed, **args):
  return chain.problems(split, seed + 1, **args)


def reward(problem, text):
  del problem
  even = len(text) % 2 == 0
  return Verdict("correct" if even else "wrong", float(even))
