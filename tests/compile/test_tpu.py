"""Every TPU kernel compiles for its chips, within a committed budget.

libtpu's own compiler runs here without a TPU. Speed itself is not measured:
cost is a count of VLIW bundles (see tests/compile/bundles.py).
"""

import itertools
import json
import pathlib

import pytest

from tests.compile import cases, process

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
VMEM = {"v5e": 128 << 20, "v5p": 64 << 20, "v6e": 128 << 20}
SLACK = 1.05
# XLA's own small arrays around a kernel are laid out otherwise from one compile
# to the next (315,392 and 444,928 bytes were seen of one program).
NOISE = {"temp": 256 << 10}
KEPT = ("cost", "temp", "vmem", "bundles", "spills")
TIERS = {
  "few": cases.FEW,
  "caches": cases.CACHES,
  "kinds": cases.KINDS,
  "many": cases.MANY,
}
# Four minutes of the fast tests' time would be too much: the others are slow.
FAST = {("v5e", "few"), ("v6e", "caches")}


def broken(chip, record, committed, peer):
  """Yields what a compiled case does that it must not."""
  name = f"{chip} {record['name']}"
  if "error" in record:
    yield f"{name}: {record['error']}"
    return
  if record["vmem"] > VMEM[chip]:
    yield f"{name}: {record['vmem']} bytes of VMEM, the chip has {VMEM[chip]}"
  for key in KEPT:
    value, limit = record.get(key, 0), committed.get(key, 0)
    if value > SLACK * limit + NOISE.get(key, 0):
      yield f"{name}: {key} {value}, 5 % over the committed {limit}"
  if peer and record["cost"] > peer:
    yield f"{name}: cost {record['cost']}, tokamax's is {peer}"


def shown(name, record, peer):
  """A line of the printed table: bundles, the peer's and their ratio."""
  if "cost" not in record:
    return f"{name}: {record.get('error', 'compiles, cost not static')}"
  beside = f", tokamax {peer:,.0f}, {record['cost'] / peer:.2f}" if peer else ""
  return f"{name}: {record['cost']:,}{beside}"


def committed(name):
  path = GOLDEN / f"{name}.json"
  return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize(
  ("chip", "tier"),
  [
    pytest.param(*x, marks=() if x in FAST else pytest.mark.slow)
    for x in itertools.product(cases.CHIPS, TIERS)
  ],
)
def test_attention(chip, tier, tmp_path, request, golden, capsys):
  process.needs_libtpu()
  records = process.run(chip, TIERS[tier], tmp_path / "dump")
  table = {r["name"]: r for r in records}
  peers = committed("tokamax_cost").get(chip, {})
  with capsys.disabled():
    for name, r in table.items():
      print(f"\n{chip} {shown(name, r, peers.get(name))}", end="")
  if request.config.getoption("--golden"):
    assert not [r for r in records if "error" in r]
    short = lambda r: {k: r[k] for k in KEPT if k in r}
    golden(f"tpu_{chip}_{tier}", {n: short(r) for n, r in table.items()})
    return
  limits = committed(f"tpu_{chip}_{tier}")
  found = [
    line
    for name, r in table.items()
    for line in broken(chip, r, limits.get(name, {}), peers.get(name))
  ]
  if found:
    pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.slow
@pytest.mark.parametrize("tier", [cases.FEW, cases.MANY], ids=["few", "many"])
def test_peer_is_as_committed(tier, tmp_path):
  """tokamax at its own heuristic's tiles, 128 x 128, where it is installed."""
  process.needs_libtpu()
  pytest.importorskip("tokamax", reason="tokamax is not installed")
  wanted = [c for c in tier if not c.packed]
  for chip in cases.CHIPS:
    limits = committed("tokamax_cost")[chip]
    for r in process.run(chip, wanted, tmp_path / chip, block=128):
      # What the peer has no memory for on a chip is not in the table.
      assert ("error" in r) == (r["name"] not in limits), r
      if "cost" in r:
        assert r["cost"] == pytest.approx(limits[r["name"]], rel=0.05)


GOOD = {"name": "x", "cost": 100, "temp": 10 << 20, "vmem": 1000}
GOOD |= {"bundles": 1000, "spills": 100}


def test_within_budget():
  assert not list(broken("v5e", GOOD, GOOD, 100))


@pytest.mark.parametrize(
  "change",
  [
    {"error": "out of VMEM"},
    {"cost": 106},
    {"temp": 11 << 20},
    {"vmem": 129 << 20},
    {"vmem": 1051},
    {"bundles": 1051},
    {"spills": 106},
  ],
)
def test_over_budget(change):
  assert list(broken("v5e", GOOD | change, GOOD, None))


def test_slower_than_the_peer():
  assert list(broken("v5e", GOOD, GOOD, 99))
