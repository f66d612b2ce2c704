"""Where a benchmark's Markdown goes; the flag is theirs in common."""

import pathlib
from collections.abc import Iterable

from absl import flags

_OUT = flags.DEFINE_string("out", None, "Where the Markdown table goes.")


def keep(lines: Iterable[str]) -> None:
  """Writes the lines to the file that --out names, if it names one."""
  if _OUT.value is not None:
    pathlib.Path(_OUT.value).write_text("\n".join(lines) + "\n")
