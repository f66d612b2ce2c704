"""Graphs are read as published; whatever else they hold is named."""

import tarfile

import pytest

from research.data import graph
from tests import archives

WHOLE = dict.fromkeys(archives.MEMBERS, "a\t_hypernym\tb\n")


def test_each_triple_comes_once_in_three_words(tmp_path):
  parts = WHOLE | {"test.txt": "b\t_verb_group\ta\nb\t/x/y.z\tc\n"}
  archives.write(tmp_path, "nations", parts)
  found = graph.facts("nations", tmp_path)
  a, b, c = (graph._code(i) for i in range(3))
  assert [str(fact) for fact in found] == [
    f"{a} kind {b}",
    f"{b} x_y_z {c}",
    f"{b} verb {a}",
  ]


def test_names_differ_and_none_is_a_relation():
  names = {graph._code(i) for i in range(40_943)}
  assert len(names) == 40_943
  assert not names & set(graph._WORDS.values())
  assert {len(name) for name in names} == {3}
  with pytest.raises(ValueError, match="46656"):
    graph._code(36**3)


def test_a_changed_archive_is_read_anew(tmp_path):
  path = archives.write(tmp_path, "kinship", WHOLE)
  assert len(graph.facts("kinship", tmp_path)) == 1
  archives.write(tmp_path, "kinship", WHOLE | {"test.txt": "b\tr\ta\n"})
  stat = path.stat()
  assert stat.st_mtime_ns
  assert len(graph.facts("kinship", tmp_path)) == 2


@pytest.mark.parametrize(
  ("parts", "told"),
  [
    ({"train.txt": "a\tr\tb\n"}, "valid.txt"),
    (WHOLE | {"test.txt": "a\tr\tb\na\tr\n"}, r"test.txt:2: not head"),
    (WHOLE | {"test.txt": "a\tr\tb\tc\n"}, r"test.txt:1: not head"),
    (WHOLE | {"valid.txt": "a\t \tb\n"}, r"valid.txt:1: not head"),
    (WHOLE | {"train.txt": b"a\tr\t\xff\n"}, r"train.txt:1: not UTF-8"),
  ],
)
def test_what_is_not_as_published_is_named(tmp_path, parts, told):
  archives.write(tmp_path, "kinship", parts)
  with pytest.raises(ValueError, match=told):
    graph.facts("kinship", tmp_path)


def test_a_member_of_another_kind_or_size_is_refused(tmp_path, monkeypatch):
  path = archives.write(tmp_path, "kinship", WHOLE)
  with tarfile.open(path, "w:gz") as archive:
    for name in archives.MEMBERS:
      entry = tarfile.TarInfo(name)
      entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
      archive.addfile(entry)
  with pytest.raises(ValueError, match=r"train.txt is no file"):
    graph.facts("kinship", tmp_path)
  archives.write(tmp_path, "nations", WHOLE)
  monkeypatch.setattr(graph, "LARGEST", 3)
  with pytest.raises(ValueError, match=r"no file of at most 3 B"):
    graph.facts("nations", tmp_path)


@pytest.mark.parametrize("cut", [0, 40, -30])
def test_a_torn_archive_is_named(tmp_path, cut):
  path = archives.made_up(tmp_path, entities=50)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(ValueError, match=r"WN18RR.tar.gz: not an archive"):
    graph.facts("WN18RR", tmp_path)


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.delenv("PITH_DATA", raising=False)
  with pytest.raises(FileNotFoundError, match=r"WN18RR.tar.gz.*ConvE"):
    graph.facts("WN18RR", tmp_path)
  with pytest.raises(FileNotFoundError, match="PITH_DATA"):
    graph.facts("WN18RR")
  with pytest.raises(ValueError, match=r"'wn'.*WN18RR"):
    graph.facts("wn", tmp_path)


@pytest.mark.parametrize(
  ("name", "count", "names"),
  [("WN18RR", 93_003, 40_943), ("kinship", 10_686, 104)],
)
def test_the_published_graphs_are_whole(data_dir, name, count, names):
  if not (data_dir / "kg" / f"{name}.tar.gz").exists():
    pytest.skip(f"{name}.tar.gz is not here")
  found = graph.facts(name, data_dir)
  assert len(found) == len(set(found)) == count
  assert len({word for fact in found for word in fact[::2]}) == names
