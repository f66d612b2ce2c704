"""One config under several seeds, side by side in a table that can be kept.

python -m experiments.seeds --config=experiments/configs/NAME.py \
    --workdir=DIR --seeds=0,1,2 --out=experiments/results/NAME.md

Each seed is a run of its own under DIR/SEED, resumed like any other. The table
takes the place of what stood before the file's first "## ": notes below stay.
A picture lies beside it, NAME.png, of the figures whose names --figures fits.
"""

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

from absl import app, flags

from experiments import seed_plot, seed_table

_CONFIG = flags.DEFINE_string("config", None, "The recipe.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Its runs.", required=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "One run each.")
_OUT = flags.DEFINE_string("out", None, "The table.", required=True)
_FIGURES = flags.DEFINE_string(
  "figures", r".*(/pass@1|/nats)", "A regular expression: what is drawn."
)


def _run(seed: str) -> pathlib.Path:
  """Runs one seed; its own output goes to the terminal."""
  folder = pathlib.Path(_WORKDIR.value) / seed
  command = [sys.executable, "-m", "experiments.run"]
  command += [f"--config={_CONFIG.value}", f"--workdir={folder}"]
  subprocess.run([*command, f"--config.seed={seed}"], check=True)
  return folder


def _seconds(folder: pathlib.Path) -> float:
  spent = [json.loads(p.read_text()) for p in folder.glob("*/seconds.json")]
  return sum(stage["seconds"] for stage in spent)


def _summaries(folders: list[pathlib.Path]) -> list[dict[str, Any]]:
  return [json.loads((f / "summary.json").read_text()) for f in folders]


def _draw(folders: list[pathlib.Path], out: pathlib.Path) -> None:
  """Writes the picture beside the table, where any figure is to be drawn."""
  drawn = re.compile(_FIGURES.value)
  chosen = [
    {n: v for n, v in summary.items() if drawn.fullmatch(n)}
    for summary in _summaries(folders)
  ]
  if chosen[0]:
    seed_plot.save(chosen, _SEEDS.value, out.stem, out.with_suffix(".png"))


def _text(folders: list[pathlib.Path]) -> str:
  abouts = [json.loads((f / "config.json").read_text()) for f in folders]
  summaries = _summaries(folders)
  commits = ", ".join(sorted({about["commit"] for about in abouts}))
  seconds = ", ".join(f"{_seconds(f):.0f} s" for f in folders)
  out, drawn = pathlib.Path(_OUT.value), ""
  if _FIGURES.value != _FIGURES.default:
    drawn = f" --figures='{_FIGURES.value}'"
  return f"""# {out.stem}

Command: `python -m experiments.seeds --config={_CONFIG.value} \
--workdir={_WORKDIR.value} --seeds={",".join(_SEEDS.value)}{drawn} --out={out}`

Commit {commits}; device {abouts[0]["device"]}; wall time a seed: {seconds}
(its stages together; of one that was resumed, the last attempt). Brackets are
95 % intervals: a seed's own over problems, the last column's over seeds
(Student's t). No seed was picked.

{seed_table.table(summaries, _SEEDS.value)}
"""


def main(argv: list[str]) -> None:
  """Runs every seed, then writes the table."""
  del argv
  if len(_SEEDS.value) < 2:
    sys.exit("error: --seeds wants at least two, such as 0,1,2")
  folders = [_run(seed) for seed in _SEEDS.value]
  out = pathlib.Path(_OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(seed_table.with_notes(_text(folders), out))
  _draw(folders, out)


if __name__ == "__main__":
  app.run(main)
