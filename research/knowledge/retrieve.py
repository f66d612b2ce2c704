"""Which passages belong to a question, by what is known of it.

Knowledge-augmented reasoning distillation (KARD, Kang et al. 2023, 2305.18395)
reads passages found by the rationale while it learns, and by the question, with
a reranker, when there is no rationale yet.
"""

import itertools
import random
from collections.abc import Iterable, Sequence

import numpy as np

from research.knowledge import bm25
from research.knowledge.bm25 import Index

FIRST = 2  # passages whose words a question is given
PATIENCE = 100  # times as many passages are drawn as are wanted


def by_text(index: Index, query: str, count: int) -> list[int]:
  """Returns what BM25 finds by a question or by a rationale, best first."""
  return bm25.best(bm25.scores(index, query), count)


def by_feedback(index: Index, question: str, count: int) -> list[int]:
  """Returns what a question finds with its own best passages, best first.

  Pseudo-relevance feedback (Rocchio 1971): the second fact of a chain shares a
  name with the first one and none with the question.
  """
  first = by_text(index, question, FIRST)
  told = " ".join([question, *(index.passages[place] for place in first)])
  return by_text(index, told, count)


def candidates(
  index: Index, question: str, rationale: str, count: int
) -> tuple[list[int], np.ndarray]:
  """Returns passages to learn an order of, and their scores by the rationale.

  Half of the `count` are the rationale's best, the rest the question's. Raises
  ValueError where neither finds any.
  """
  scores = bm25.scores(index, rationale)
  ours = bm25.best(scores, count // 2)
  theirs = by_feedback(index, question, count)
  places = list(dict.fromkeys(ours + theirs))[:count]
  if not places:
    raise ValueError(f"no passage shares a word with {question[:80]!r}")
  return places, scores[places]


def at_random(
  index: Index, rng: random.Random, answer: str, count: int
) -> list[int]:
  """Returns passages drawn blindly, of those that do not hold the answer.

  Raises ValueError where too few of many do not.
  """
  most = len(index.passages)
  drawn = rng.sample(range(most), min(most, PATIENCE * count))
  blind = (i for i in drawn if not holds([index.passages[i]], answer))
  found = list(itertools.islice(blind, count))
  if len(found) < count:
    raise ValueError(
      f"of {len(drawn)} passages there are not {count} without {answer!r}"
    )
  return found


def holds(passages: Iterable[str], answer: str) -> bool:
  """Returns whether a passage has the answer's words, side by side."""
  wanted = f" {' '.join(bm25.words(answer))} "
  return any(wanted in f" {' '.join(bm25.words(p))} " for p in passages)


def needed(index: Index, rationale: str) -> frozenset[str]:
  """Returns the lines of a rationale that are passages, word for word.

  None where a rationale is written in its own words.
  """
  return index.known.intersection(rationale.splitlines())


def recall(found: Sequence[str], needed: frozenset[str]) -> float:
  """Returns how many of the needed passages were found, from 0 to 1."""
  return len(needed.intersection(found)) / len(needed)


def before(passages: Iterable[str], prompt: str) -> str:
  """Returns a prompt behind its passages, in the alphabet's order.

  Their ranks would tell a reader which of them to copy, with the rationale's
  above all, and what it learned from that would not hold at inference.
  """
  return "\n".join([*sorted(passages), prompt])
