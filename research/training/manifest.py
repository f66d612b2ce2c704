"""A manifest vouches for a directory: path, size and SHA-256 of every file."""

import hashlib
import json
import os
import pathlib
from typing import Any

MANIFEST = "manifest.json"
_Path = str | os.PathLike[str]


def manifest(path: _Path) -> str:
  """Hashes every file below `path` but the manifest itself.

  Returns canonical JSON, one file a line: {relative path: [bytes, sha256]}.
  """
  root = pathlib.Path(path)
  files = {}
  for file in sorted(root.rglob("*")):
    name = file.relative_to(root).as_posix()
    if file.is_file() and name != MANIFEST:
      with file.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
      files[name] = [file.stat().st_size, digest]
  lines = (f"{json.dumps(k)}: {json.dumps(v)}" for k, v in files.items())
  return "{\n" + ",\n".join(lines) + "\n}\n"


def damage(path: _Path) -> str | None:
  """Says what is wrong with the sealed directory `path`; None when it is whole.

  Notices missing, surplus, shortened and altered files, and a manifest that
  is missing or altered itself.
  """
  file = pathlib.Path(path) / MANIFEST
  if not file.is_file():
    return f"{MANIFEST} is missing"
  text, actual = file.read_bytes(), manifest(path)
  if text == actual.encode():
    return None
  try:
    listed = json.loads(text)
  except ValueError:
    return f"{MANIFEST} is not readable"
  if not isinstance(listed, dict):
    return f"{MANIFEST} is not a table of files"
  return _difference(listed, json.loads(actual))


def _difference(listed: dict[str, Any], actual: dict[str, Any]) -> str:
  """Names the first file whose entry differs between two manifests."""
  for name in sorted({*listed, *actual}):
    if name not in actual:
      return f"{name} is missing"
    if name not in listed:
      return f"{name} is not in {MANIFEST}"
    if listed[name] != actual[name]:
      (size, digest), entry = actual[name], listed[name]
      if not isinstance(entry, list) or digest in entry or len(entry) != 2:
        return f"{MANIFEST} is altered at {name}"
      if entry[0] != size:
        return f"{name} has {size} bytes, {MANIFEST} says {entry[0]}"
      return f"{name} does not match its SHA-256"
  return f"{MANIFEST} is altered"


def seal(path: _Path) -> None:
  """Writes the manifest of `path` and forces all of it to the disk."""
  root = pathlib.Path(path)
  (root / MANIFEST).write_text(manifest(root))
  for file in [*root.rglob("*"), root]:
    fsync(file)


def fsync(path: pathlib.Path) -> None:
  """Forces one file or directory to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
