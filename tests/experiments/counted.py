"""A stage that counts how often it ran and ends as it is told, and its config.

get_config("first=ends;second=ends") has these two stages.
"""

import dataclasses
import errno

from ml_collections import ConfigDict

from experiments.settings import Run, Stage

ENDS = {
  "ValueError": ValueError("planted"),
  "TypeError": TypeError("planted"),
  "RuntimeError": RuntimeError("planted"),
  "OSError": OSError(errno.EIO, "planted"),
  "FloatingPointError": FloatingPointError("planted"),
}


@dataclasses.dataclass(frozen=True)
class Config:
  run: Run
  ends: str
  behind: Stage | None = None


def run(config, inputs, workdir):
  path = workdir / "count"
  path.write_text(path.read_text() + "x" if path.exists() else "x")
  if config.ends in ENDS:
    raise ENDS[config.ends]
  line = {"mean": len(inputs) / 4, "low": 0.0, "high": 1.0, "n": 4}
  return {"summary": {f"{workdir.name}/pass@1": line}, "seen": dict(inputs)}


def get_config(arg="first=well;second=well"):
  c = ConfigDict()
  c.seed = 0
  c.tokenizer = "bytes"
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1}
  c.model = {"preset": "tiny", "width": 32}
  ends = dict(part.split("=") for part in arg.split(";"))
  for name, end in ends.items():
    c[name] = {"stage": "tests.experiments.counted", "ends": end}
  c.stages = tuple(ends)
  return c
