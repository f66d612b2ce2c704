import hashlib
import json

import pytest

from research.training import manifest


@pytest.fixture
def sealed(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "x").write_bytes(b"12345")
  (tmp_path / "é").write_bytes(b"")
  manifest.seal(tmp_path)
  return tmp_path


def test_lists_path_size_and_hash_of_every_file(sealed):
  listed = json.loads((sealed / manifest.MANIFEST).read_text())
  digest = hashlib.sha256(b"12345").hexdigest()
  empty = hashlib.sha256(b"").hexdigest()
  assert listed == {"a/x": [5, digest], "é": [0, empty]}
  assert manifest.damage(sealed) is None


def _rewrite(path, change):
  file = path / manifest.MANIFEST
  file.write_text(change(file.read_text()))


DAMAGES = {
  "a/x is missing": lambda p: (p / "a" / "x").unlink(),
  "a/y is not in manifest.json": lambda p: (p / "a" / "y").touch(),
  "a/x has 4 bytes, manifest.json says 5": lambda p: (
    p / "a" / "x"
  ).write_bytes(b"1234"),
  "a/x does not match its SHA-256": lambda p: (p / "a" / "x").write_bytes(
    b"12344"
  ),
  "manifest.json is missing": lambda p: (p / manifest.MANIFEST).unlink(),
  "manifest.json is altered at a/x": lambda p: _rewrite(
    p, lambda text: text.replace("[5,", "[6,")
  ),
  "manifest.json is altered": lambda p: _rewrite(p, lambda text: text + " "),
  "manifest.json is not readable": lambda p: _rewrite(p, lambda text: "{"),
  "manifest.json is not a table of files": lambda p: _rewrite(
    p, lambda text: "[]"
  ),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damage_says_what_is_wrong(sealed, reason):
  DAMAGES[reason](sealed)
  assert manifest.damage(sealed) == reason
