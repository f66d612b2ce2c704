"""Questions that follow several facts of a knowledge graph.

    prompt   k3f kind area?           from k3f by `kind`, from there by `area`
    trace    k3f kind 9ab
             9ab area zz1
             #### zz1

Every step has one tail only in the whole graph, so that the answer is one
entity and not a set, and no entity comes twice. The difficulty is the number of
facts.

A longer chain contains shorter ones, so a split is decided by the pairs of
facts that follow each other: a chain with a pair of ood is ood, else one with a
pair of test is test, and train has train's pairs alone. Nothing of train's
traces answers a question of test.
"""

import collections
import functools
import itertools
import os
import random
from collections.abc import Iterator, Sequence

from research import splits
from research.data import graph as graphs
from research.data.graph import Fact
from research.grading import equality, extract
from research.types import Problem, Verdict

SPLITS = splits.SPLITS
HOPS = {"train": (2, 2), "test": (2, 2), "ood": (3, 3)}
PATIENCE = 10_000


def problems(
  split: str,
  seed: int,
  hops: Sequence[int] | None = None,
  graph: str = "WN18RR",
  data_dir: str | os.PathLike | None = None,
) -> Iterator[Problem]:
  """Questions of lo..hi facts without end; `hops=(lo, hi)`.

  By default those of `HOPS[split]`. `graph` and `data_dir` are those of
  `research.data.graph.facts`, with its errors. Raises ValueError on an unknown
  split, on hops out of order, and when a split has no new problem left.
  """
  splits.check("hops", split)
  bounds = HOPS[split] if hops is None else hops
  levels = splits.span("hops", "hops", bounds, least=2)
  steps = _steps(graphs.facts(graph, data_dir))
  draw = functools.partial(_draw, graph, steps, sorted(steps))
  return splits.stream("hops", split, seed, levels, draw, _split)


def trace(problem: Problem, seed: int) -> str:
  """The facts in order, then the answer; there is one way, whatever the seed.

  Raises ValueError when the problem tells no facts.
  """
  del seed
  if not problem.meta.get("facts"):
    raise ValueError(f"hops: {problem.prompt[:80]!r} comes without its facts")
  return "\n".join([*problem.meta["facts"], answer_text(problem)])


def answer_text(problem: Problem) -> str:
  """The answer alone, as a completed text ends."""
  return f"#### {problem.answer}"


def reward(problem: Problem, text: str) -> Verdict:
  """Whether the last `####` line names the entity."""
  return equality.grade_text(problem.answer, extract.strict(text))


def extracted(text: str) -> str | None:
  """The answer that `reward` reads; or None."""
  return extract.strict(text)


def lenient(problem: Problem, text: str) -> Verdict:
  """Whether any marker, or else the last word, names the entity."""
  found = extract.marked(text)
  if found is None:
    found = next(iter(extract.conclusion(text).split()[-1:]), None)
  return equality.grade_text(problem.answer, found)


def _steps(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
  """Each entity's facts, where no other has the same head and relation."""
  times = collections.Counter(fact[:2] for fact in facts)
  found = collections.defaultdict(list)
  for fact in facts:
    if times[fact[:2]] == 1 and fact.head != fact.tail:
      found[fact.head].append(fact)
  return dict(found)


def _draw(
  graph: str,
  steps: dict[str, list[Fact]],
  heads: Sequence[str],
  rng: random.Random,
  length: int,
) -> Problem:
  """Any chain of `length` facts; ValueError where the graph seems to have none.

  `heads` are the keys of `steps`.
  """
  for _ in range(PATIENCE):
    chain = _walk(steps, rng, rng.choice(heads), length)
    if chain is not None:
      relations = " ".join(fact.relation for fact in chain)
      question = f"{chain[0].head} {relations}"
      meta = {
        "key": f"{graph}: {question}",
        "difficulty": length,
        "facts": [str(fact) for fact in chain],
      }
      return Problem(f"{question}?", chain[-1].tail, meta)
  raise ValueError(
    f"hops: {PATIENCE} walks through {graph} found no chain of {length} facts "
    "with one answer each; ask for fewer hops"
  )


def _walk(
  steps: dict[str, list[Fact]], rng: random.Random, at: str, length: int
) -> list[Fact] | None:
  """A walk of `length` facts that visits nothing twice, or None."""
  chain: list[Fact] = []
  seen = {at}
  while len(chain) < length:
    open_ = [fact for fact in steps.get(at, ()) if fact.tail not in seen]
    if not open_:
      return None
    chain.append(rng.choice(open_))
    at = chain[-1].tail
    seen.add(at)
  return chain


def _split(problem: Problem) -> str:
  """The strictest split of the pairs of facts of a chain."""
  facts = [fact.split() for fact in problem.meta["facts"]]
  pairs = [
    f"{head} {first} {second}"
    for (head, first, _), (_, second, _) in itertools.pairwise(facts)
  ]
  owns = [splits.assign(Problem("", "", {"key": pair})) for pair in pairs]
  return max(owns, key=SPLITS.index)
