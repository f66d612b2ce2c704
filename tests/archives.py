"""Knowledge graphs made up for tests, packed as the published ones are."""

import io
import random
import tarfile

MEMBERS = ("valid.txt", "train.txt", "test.txt")


def write(root, graph, members):
  """Writes kg/GRAPH.tar.gz under `root`, with the text of each member."""
  path = root / "kg" / f"{graph}.tar.gz"
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, "w:gz") as archive:
    for name, data in members.items():
      data = data if isinstance(data, bytes) else data.encode()
      entry = tarfile.TarInfo(name)
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
  return path


def triples(entities=1500, seed=0):
  """Two relations with one tail a head, and `_has_part` with two."""
  rng = random.Random(seed)
  other = lambda: f"{rng.randrange(entities):08d}"
  found = set()
  for i in range(entities):
    for relation in ("_hypernym", "_also_see"):
      found.add((f"{i:08d}", relation, other()))
    found |= {(f"{i:08d}", "_has_part", other()) for _ in range(2)}
  return sorted(found)


def made_up(root, graph="WN18RR", **args):
  """Writes an archive of `triples`, a third in each member."""
  lines = ["\t".join(triple) + "\n" for triple in triples(**args)]
  parts = {name: "".join(lines[i::3]) for i, name in enumerate(MEMBERS)}
  return write(root, graph, parts)
