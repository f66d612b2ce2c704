"""A knowledge graph's facts as passages, one each."""

import os

from research.data import graph as graphs


def passages(
  graph: str = "WN18RR", data_dir: str | os.PathLike | None = None
) -> list[str]:
  """Returns all facts of a graph, as `research.tasks.hops` writes them.

  Arguments and errors are those of `research.data.graph.facts`.
  """
  return [str(fact) for fact in graphs.facts(graph, data_dir)]
