"""Knowledge graphs as ConvE publishes them, read inside of their archives.

Dettmers et al. 2018 (1707.01476). A graph is `kg/NAME.tar.gz` with the members
train.txt, valid.txt and test.txt, a triple a line: head, relation and tail with
tabs between. Nothing is unpacked to disk.
"""

import functools
import os
import pathlib
import re
import string
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

GRAPHS = ("FB15k-237", "WN18RR", "kinship", "nations")
MEMBERS = ("train.txt", "valid.txt", "test.txt")
LARGEST = 2**26  # bytes of a member; the largest published one has 2^24
PUBLISHER = "the repository TimDettmers/ConvE"

# Of four letters each, as names have three: all facts are of one length, and a
# reader of bytes finds their parts by place.
_WORDS = {
  "_also_see": "also",
  "_derivationally_related_form": "root",
  "_has_part": "part",
  "_hypernym": "kind",
  "_instance_hypernym": "case",
  "_member_meronym": "unit",
  "_member_of_domain_region": "land",
  "_member_of_domain_usage": "talk",
  "_similar_to": "like",
  "_synset_domain_topic_of": "area",
  "_verb_group": "verb",
}
_LETTERS = string.ascii_lowercase + string.digits


class Fact(NamedTuple):
  """One triple."""

  head: str
  relation: str
  tail: str

  def __str__(self) -> str:
    """The fact in three words."""
    return " ".join(self)


def facts(
  graph: str, data_dir: str | os.PathLike | None = None
) -> tuple[Fact, ...]:
  """The triples of a graph, each once, in words that a small reader can spell.

  Entities, whose published names are numbers, become codes of three letters or
  digits, the same in every process. `data_dir` holds the folder kg (None: the
  variable PITH_DATA says where). Raises ValueError on an unknown graph and on
  an archive or a line that is none (named), and FileNotFoundError telling how
  to get one that is missing.
  """
  if graph not in GRAPHS:
    raise ValueError(f"no graph {graph!r}; choose one of {', '.join(GRAPHS)}")
  path = _archive(graph, data_dir)
  return _facts(path, path.stat().st_mtime_ns)


def _archive(graph: str, data_dir: str | os.PathLike | None) -> pathlib.Path:
  """The path of a graph's archive; FileNotFoundError where there is none."""
  root = data_dir or os.environ.get("PITH_DATA")
  path = pathlib.Path(root or ".").expanduser() / "kg" / f"{graph}.tar.gz"
  if not root or not path.is_file():
    raise FileNotFoundError(
      f"{path if root else 'no data directory is named, and the graph'} is "
      f"missing. Get {graph}.tar.gz from {PUBLISHER}, put it into a folder kg, "
      "and name the folder that holds kg by data_dir (--config.data_dir=DIR) "
      "or by the environment variable PITH_DATA"
    )
  return path


@functools.lru_cache(maxsize=4)
def _facts(path: pathlib.Path, changed: int) -> tuple[Fact, ...]:
  """The facts of an archive as it was when it `changed` last."""
  del changed
  triples = sorted(set(_triples(path)))
  found = sorted({name for triple in triples for name in triple[::2]})
  codes = {name: _code(i) for i, name in enumerate(found)}
  return tuple(
    Fact(codes[triple.head], _word(triple.relation), codes[triple.tail])
    for triple in triples
  )


def _code(index: int) -> str:
  """A name of three characters; neighbours in the index have unlike ones."""
  size = len(_LETTERS) ** 3
  if index >= size:
    raise ValueError(f"a graph of more than {size} entities has no short names")
  rest = index * 24_691 % size  # coprime with the size, so no name comes twice
  name = ""
  for _ in range(3):
    rest, place = divmod(rest, len(_LETTERS))
    name += _LETTERS[place]
  return name


def _word(relation: str) -> str:
  """A relation as one word."""
  return _WORDS.get(relation) or re.sub(r"\W+", "_", relation).strip("_")


def _triples(path: pathlib.Path) -> Iterator[Fact]:
  """The lines of all members; ValueError names what is not as published."""
  try:
    with tarfile.open(path, "r:gz") as archive:
      for name in MEMBERS:
        member = archive.getmember(name)
        if not member.isreg() or member.size > LARGEST:
          raise ValueError(f"{path}: {name} is no file of at most {LARGEST} B")
        file = archive.extractfile(member)
        yield from _lines(file.read() if file else b"", f"{path}:{name}")
  except (KeyError, EOFError, OSError, tarfile.TarError) as error:
    raise ValueError(
      f"{path}: not an archive of {', '.join(MEMBERS)} ({error}); get it anew "
      f"from {PUBLISHER}"
    ) from error


def _lines(data: bytes, where: str) -> Iterator[Fact]:
  """The triples of one member."""
  for number, line in enumerate(data.splitlines(), 1):
    try:
      parts = line.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
      raise ValueError(f"{where}:{number}: not UTF-8 ({error})") from error
    if len(parts) != 3 or not all(part.strip() for part in parts):
      raise ValueError(f"{where}:{number}: not head, relation and tail")
    yield Fact(*parts)
