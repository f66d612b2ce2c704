"""Starts the process that compiles: jax reads its environment on import."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from experiments.bench import memory
from tests.compile.cases import Case

REPOSITORY = pathlib.Path(__file__).parents[2]


def needs_libtpu() -> None:
  """Skips, counted, where the compiler is not installed."""
  if not memory.has_libtpu():
    pytest.skip("libtpu is not installed: make compilers")


def vocabulary(kind: str, dump: pathlib.Path) -> dict[str, int]:
  """Returns temporary bytes of each loss, "blocked" or "dense", on a v5p."""
  done = subprocess.run(
    [sys.executable, "-m", "tests.compile.vocab", kind],
    cwd=REPOSITORY,
    env=memory.environment(),
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise RuntimeError(f"{kind} losses: {done.stderr[-2000:]}")
  records = [json.loads(line) for line in done.stdout.splitlines()]
  return {r["name"]: r["temp"] for r in records}


def run(
  chip: str,
  wanted: list[Case],
  dump: pathlib.Path,
  block: int | None = None,
) -> list[dict]:
  """Compiles for a chip; returns a record a case, in order.

  Raises:
    RuntimeError: the process broke off; holds the end of what it said.
  """
  dump.mkdir(parents=True, exist_ok=True)
  # Only what is read: all that a pass can write takes thrice the time.
  flags = (
    f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"
    " --xla_jf_dump_llo_pass_label_regex=final_bundles|post-simplifier-2"
  )
  listed = [dataclasses.asdict(case) for case in wanted]
  asked = {"chip": chip, "dump": str(dump), "cases": listed, "block": block}
  done = subprocess.run(
    [sys.executable, "-m", "tests.compile.worker"],
    cwd=REPOSITORY,
    env=memory.environment(flags),
    input=json.dumps(asked),
    capture_output=True,
    text=True,
  )
  records = [json.loads(line) for line in done.stdout.splitlines()]
  if done.returncode or len(records) != len(wanted):
    raise RuntimeError(f"compiling for {chip} broke off: {done.stderr[-2000:]}")
  return records
