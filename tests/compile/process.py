"""Starts the process that compiles: jax reads its environment on import."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.compile.cases import Case

REPOSITORY = pathlib.Path(__file__).parents[2]
BESIDE = REPOSITORY / ".venv-tpu"  # what `make compilers` makes


def environment(dump: pathlib.Path) -> dict[str, str]:
  """What libtpu needs where there is no TPU; the tests' own flags are left."""
  ours = ("XLA_FLAGS", "JAX_", "LIBTPU")
  kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
  # Only what is read: all that a pass can write takes thrice the time.
  flags = (
    f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true"
    " --xla_jf_dump_llo_pass_label_regex=final_bundles|post-simplifier-2"
  )
  path = [str(BESIDE), *filter(None, [kept.get("PYTHONPATH")])]
  return kept | {
    "PYTHONPATH": os.pathsep.join(path),
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    # Else two processes wait for one another's lock.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "LIBTPU_INIT_ARGS": flags,
  }


def needs_libtpu() -> None:
  """Skips, counted, where the compiler is not installed."""
  beside = (BESIDE / "libtpu").is_dir()
  if not beside and importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu is not installed: make compilers")


def vocabulary(kind: str, dump: pathlib.Path) -> dict[str, int]:
  """Returns temporary bytes of each loss, "blocked" or "dense", on a v5p."""
  done = subprocess.run(
    [sys.executable, "-m", "tests.compile.vocab", kind],
    cwd=REPOSITORY,
    env=environment(dump) | {"LIBTPU_INIT_ARGS": ""},
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
  listed = [dataclasses.asdict(case) for case in wanted]
  asked = {"chip": chip, "dump": str(dump), "cases": listed, "block": block}
  done = subprocess.run(
    [sys.executable, "-m", "tests.compile.worker"],
    cwd=REPOSITORY,
    env=environment(dump),
    input=json.dumps(asked),
    capture_output=True,
    text=True,
  )
  records = [json.loads(line) for line in done.stdout.splitlines()]
  if done.returncode or len(records) != len(wanted):
    raise RuntimeError(f"compiling for {chip} broke off: {done.stderr[-2000:]}")
  return records
