"""What an evaluation asks must not be learned by heart before.

A trace is dropped where its prompt or its text shares eight words in a row
with the question of an evaluation set (Brown et al. 2020, appendix C, had 13;
open-r1 has 8). A shorter question, which has no eight, is looked for whole,
signs and all, in prompts.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence

from research.annotation import gates, words
from research.annotation.gates import About, Reason, Sifted
from research.types import Trace

WORDS = 8
Index = Mapping[str, list[tuple[str, int]]]  # (set, item) by what they say


def sift(traces: Sequence[Trace], about: About) -> Sifted:
  """Drops what meets a set of `about.held_out`; says which of its items.

  Items count from 0. Figures are the sizes of the sets, and how many items of
  each were met. Raises ValueError where there are no sets.
  """
  if not about.held_out:
    raise ValueError(
      "decontaminate: no evaluation set is named: name those of this run in "
      "the stage's held_out"
    )
  long, short = _index(about.held_out)
  sizes = sorted({len(gram.split(" ")) for gram in short})
  met: dict[str, set[int]] = {name: set() for name in about.held_out}

  def judge(trace: Trace) -> Reason | None:
    found: dict[tuple[str, int], str] = {}
    for gram, index in _said(trace, long, short, sizes):
      for item in index[gram]:
        found.setdefault(item, gram)
    if not found:
      return None
    for name, item in found:
      met[name].add(item)
    told = (f"{name}[{item}]: {gram}" for (name, item), gram in found.items())
    return Reason("in an evaluation set", "; ".join(told))

  sifted = gates.split(traces, judge)
  figures = {
    name: {"items": len(texts), "met": len(met[name])}
    for name, texts in about.held_out.items()
  }
  return Sifted(sifted.kept, sifted.dropped, {"held_out": figures})


def _index(held_out: Mapping[str, Sequence[str]]) -> tuple[Index, Index]:
  """The items by each of their 8-grams, and the shorter ones by all signs."""
  long, short = collections.defaultdict(list), collections.defaultdict(list)
  for name, texts in held_out.items():
    for item, text in enumerate(texts):
      found = words.words(text)
      if len(found) >= WORDS:
        for gram in set(words.grams(found, WORDS)):
          long[gram].append((name, item))
      elif signs := words.symbols(text):
        short[" ".join(signs)].append((name, item))
  return dict(long), dict(short)


def _said(
  trace: Trace, long: Index, short: Index, sizes: Sequence[int]
) -> Iterable[tuple[str, Index]]:
  """What a trace says of what an index knows."""
  for text in (trace.problem.prompt, trace.text or ""):
    for gram in words.grams(words.words(text), WORDS):
      if gram in long:
        yield gram, long
  signs = words.symbols(trace.problem.prompt)
  for size in sizes:
    for gram in words.grams(signs, size):
      if gram in short:
        yield gram, short
