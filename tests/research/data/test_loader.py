import hashlib
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from research.data import loader

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
A = list(range(3, 43))
B = list(range(1003, 1023))


def encode(record):
  """A record's number as an example whose tokens all tell the number."""
  size = 2 + record % 7
  tokens = np.full(size, record, np.int32)
  return {"tokens": tokens, "mask": np.ones(size, np.int8)}


def make(host=0, hosts=1, **changes):
  plan = {"length": 16, "rows": 8, "shards": 4, "seed": 5} | changes
  sources = plan.pop("sources", [A, B])
  plan = {"weights": [3.0, 1.0]} | plan if len(sources) == 2 else plan
  return loader.Loader(sources, encode, pad=0, host=host, hosts=hosts, **plan)


def take(iterator, n):
  return [next(iterator) for _ in range(n)]


def equal(a, b):
  return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def gather(batches):
  """The hosts' parts of one step as one batch."""
  return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def through_json(state):
  return json.loads(json.dumps(state))


def digest(batches):
  data = b"".join(x.tobytes() for b in batches for x in jax.tree.leaves(b))
  return hashlib.sha256(data).hexdigest()


def test_shapes_and_seed():
  batch = next(make())
  assert batch.tokens_BT.shape == (8, 16)
  assert (batch.segments_BT[:, 0] == 1).all()  # no row is empty
  assert equal(take(make(), 3), take(make(), 3))
  assert not equal(next(make()), next(make(seed=6)))


@pytest.mark.parametrize("hosts", [2, 4])
def test_rows_are_the_same_on_any_number_of_hosts(hosts):
  parts = [take(make(h, hosts), 5) for h in range(hosts)]
  assert parts[0][0].tokens_BT.shape == (8 // hosts, 16)
  for step, whole in enumerate(take(make(), 5)):
    assert equal(gather([part[step] for part in parts]), whole)


def test_shards_read_different_records():
  batch = next(make(sources=[range(3, 403)]))
  starts = (batch.segments_BT > 0) & (batch.positions_BT == 0)
  records = batch.tokens_BT[starts].tolist()
  assert len(records) == len(set(records)) >= 8


def test_sources_of_one_size_are_shuffled_apart():
  mixed = loader.stream([range(40), range(40)], seed=0)
  pairs = [(mixed[2 * i], mixed[2 * i + 1]) for i in range(40)]
  assert sum(a == b for a, b in pairs) < 20


def test_restores_mid_epoch():
  whole = make()
  before = take(whole, 7)
  state = through_json(whole.state())
  after = take(whole, 20)  # over the end of the first epoch of both
  again = make()
  assert not equal(take(again, 7), after[:7])
  again.restore(state)
  assert equal(take(again, 20), after)
  assert equal(take(make(), 7), before)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 4), (4, 1)])
def test_state_moves_between_numbers_of_hosts(old, new):
  olds = [make(h, old) for h in range(old)]
  for one in olds:
    take(one, 4)
  state = through_json(loader.merge([one.state() for one in olds]))
  news = [make(h, new) for h in range(new)]
  for one in news:
    one.restore(state)
  whole = take(make(), 6)[4:]
  for batch in whole:
    assert equal(gather([next(one) for one in news]), batch)


def test_restores_in_a_new_process():
  one = make()
  take(one, 5)
  state = json.dumps(one.state())
  script = (
    "import json, sys; sys.path[:0] = sys.argv[1:3]; import test_loader as t; "
    "one = t.make(); one.restore(json.loads(sys.stdin.read())); "
    "print(t.digest(t.take(one, 4)))"
  )
  told = subprocess.run(
    [
      sys.executable,
      "-c",
      script,
      str(ROOT),
      str(pathlib.Path(__file__).parent),
    ],
    input=state,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert told.returncode == 0, told.stderr
  assert told.stdout.strip() == digest(take(one, 4))


SIZES = [40, 41, loader.SMALL - 1, loader.SMALL]


@pytest.mark.parametrize("size", SIZES)
def test_every_record_once_an_epoch_and_shuffled_anew(size):
  records = range(size)
  shards = [
    loader.stream([records], seed=1, shard=s, shards=4) for s in range(4)
  ]
  epochs = [
    [shards[i % 4][i // 4] for i in range(e * size, (e + 1) * size)]
    for e in range(3)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(records) != epoch
  assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.parametrize("n", SIZES)
def test_neighbouring_seeds_do_not_share_epochs(n):
  one, two = (loader.stream([range(n)], seed=s) for s in (1, 2))
  assert [one[n + i] for i in range(n)] != [two[i] for i in range(n)]


def test_a_source_shorter_than_the_shards_serves_all():
  seen = set()
  for batch in take(make(sources=[[3, 4]]), 20):
    seen |= set(batch.tokens_BT[batch.segments_BT > 0].tolist())
  assert seen == {3, 4}


@pytest.mark.parametrize(("weights", "share"), [([3, 1], 0.75), (None, 0.5)])
def test_mixture_proportions_hold_in_every_shard(weights, share):
  for shard in range(4):
    mixed = loader.stream(
      [A, B], seed=0, weights=weights, shard=shard, shards=4
    )
    first = sum(mixed[i] < 1000 for i in range(200))
    assert first == 200 * share


def test_too_long_is_counted_and_survives_a_restore():
  one = make(length=6)
  batches = take(one, 10)
  long = {r for r in A + B if 2 + r % 7 > 6}
  for batch in batches:
    assert not long & set(batch.tokens_BT.ravel().tolist())
  assert one.rejected > 0
  two = make(length=6)
  two.restore(through_json(one.state()))
  assert two.rejected == one.rejected


def test_all_too_long_is_an_error():
  with pytest.raises(ValueError, match="longer than length 1 "):
    next(make(length=1, sources=[[3, 4, 5]]))


def test_state_is_a_snapshot():
  one = make()
  state = one.state()
  next(one)
  assert state["shards"]["0"]["position"] == 0
  assert one.state()["shards"]["0"]["position"] > 0


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"sources": []}, "no source"),
    ({"sources": [A, []]}, "source 1 of 2 is empty"),
    ({"weights": [1.0]}, "positive weights"),
    ({"weights": [1.0, 0.0]}, "positive weights"),
    ({"rows": 6}, r"rows \(6\) must divide by shards \(4\)"),
    ({"hosts": 3}, r"by hosts \(3\)"),
    ({"host": 2, "hosts": 2}, "host 2 is not one of 2"),
  ],
)
def test_bad_arguments_raise(changes, said):
  with pytest.raises(ValueError, match=said):
    make(**changes)


def test_foreign_states_raise():
  state = make().state()
  with pytest.raises(ValueError, match="seed 5 is now 6"):
    make(seed=6).restore(state)
  with pytest.raises(ValueError, match=r"sizes \[40, 20\] is now \[40, 19\]"):
    make(sources=[A, B[1:]]).restore(state)
  with pytest.raises(ValueError, match=r"lacks shards \['2', '3'\]"):
    make().restore(make(0, 2).state())
  with pytest.raises(ValueError, match="two hosts' states"):
    loader.merge([make(0, 2).state(), make(0, 2).state()])
  with pytest.raises(ValueError, match="seed"):
    loader.merge([make(0, 2).state(), make(1, 2, seed=1).state()])


def test_a_fault_in_a_record_is_not_swallowed():
  def fail(record):
    raise ValueError(f"record {record} is bad")

  one = loader.Loader([A], fail, length=8, rows=4, shards=4, seed=0, pad=0)
  with pytest.raises(ValueError, match=r"record .* is bad"):
    next(one)
  assert one.state()["shards"]["0"]["position"] == 0
