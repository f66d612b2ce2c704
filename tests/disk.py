"""A disk small enough to be full, for tests of what then happens."""

import contextlib
import os
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(path, options):
  """Yields `path`, a tmpfs mounted by `options`; skips where none can be."""
  path.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
  if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("only root can mount a small disk")
  try:
    yield path
  finally:
    subprocess.run(["umount", "-l", str(path)], check=True)
