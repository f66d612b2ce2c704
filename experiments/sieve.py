"""The gates that a config names, ready to be run over traces."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from experiments import files
from experiments.resolve import resolve
from experiments.settings import Plugin
from research.annotation.gates import About, Gate


def named(
  plugins: Iterable[Plugin], about: About, inputs: Mapping[str, Any]
) -> list[tuple[str, Gate]]:
  """Returns the gates by name, paths among their arguments located."""
  told = lambda gate: files.located_in(gate.args, inputs)
  return [
    (
      gate.name,
      functools.partial(resolve(gate.name).sift, about=about, **told(gate)),
    )
    for gate in plugins
  ]
