"""A teacher's candidates, written and read: near, small, never of others."""

import json

import numpy as np
import pytest
from array_record.python import array_record_module

from research.data import signals

V = 151_936
KEY = signals.key_of(np.arange(3))


def drawn(rng, T=40, C=50, vocab=V, sharp=3.0):
  """One example: (tokens, signals, the whole log-probabilities)."""
  logits = rng.normal(size=(T, vocab)) * sharp
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  ids = np.argsort(-logp, axis=-1)[:, :C]
  best = np.take_along_axis(logp, ids, -1)
  tail = np.log1p(-np.exp(best).sum(-1)) if vocab > C else np.full(T, -np.inf)
  kept = rng.random(T) < 0.7
  said = signals.Signals(kept, ids.astype(np.int32), best, tail)
  return rng.integers(0, vocab, T), said, logp


def cost(p_nC, p_tail, q_nC, q_tail):
  """KL over the candidates and the tail, of each token."""
  return (np.exp(p_nC) * (p_nC - q_nC)).sum(-1) + np.exp(p_tail) * (
    p_tail - q_tail
  )


@pytest.mark.parametrize("sharp", [1.0, 3.0, 8.0])
def test_what_is_read_is_near_to_what_was_written(sharp):
  rng = np.random.default_rng(0)
  _, said, _ = drawn(rng, T=64, vocab=5000, sharp=sharp)
  data = signals.encode(KEY, said, 5000)
  read = signals.decode(KEY, data)
  kept = said.kept_T
  np.testing.assert_array_equal(read.kept_T, kept)
  np.testing.assert_array_equal(read.ids_TC[kept], said.ids_TC[kept])
  total = np.exp(read.logprobs_TC).sum(-1) + np.exp(read.tail_T)
  np.testing.assert_allclose(total[kept], 1, atol=1e-5)
  # The error is what KL sees of it: next to nothing.
  gap = cost(said.logprobs_TC, said.tail_T, read.logprobs_TC, read.tail_T)[kept]
  assert gap.min() > -1e-6 and gap.max() < 5e-4
  assert np.isfinite(read.logprobs_TC).all() and np.isfinite(read.tail_T).all()


def test_a_student_loses_the_same_within_a_hundredth():
  rng = np.random.default_rng(1)
  _, said, logp = drawn(rng, T=64, vocab=5000)
  read = signals.decode(KEY, signals.encode(KEY, said, 5000))
  other = logp + rng.normal(size=logp.shape) * 0.5
  other -= np.log(np.exp(other).sum(-1, keepdims=True))
  q = np.take_along_axis(other, said.ids_TC, -1)
  rest = np.log1p(-np.exp(q).sum(-1))
  kept = said.kept_T
  live = cost(said.logprobs_TC, said.tail_T, q, rest)[kept].mean()
  cached = cost(read.logprobs_TC, read.tail_T, q, rest)[kept].mean()
  assert live > 0.05 and abs(cached / live - 1) < 0.01


def test_a_token_takes_less_than_200_bytes():
  rng = np.random.default_rng(2)
  _, said, _ = drawn(rng, T=512, C=50, vocab=2000)
  said = said._replace(ids_TC=rng.integers(0, V, said.ids_TC.shape))
  size = len(signals.encode(KEY, said, V)) / said.kept_T.sum()
  assert size <= 168


def test_files_add_next_to_nothing(tmp_path):
  rng = np.random.default_rng(6)
  _, said, _ = drawn(rng, T=512, C=50, vocab=2000)
  examples = [
    (
      rng.integers(0, V, 512),
      said._replace(ids_TC=rng.integers(0, V, said.ids_TC.shape)),
    )
    for _ in range(20)
  ]
  signals.write(tmp_path, {"C": 50, "vocab": V}, examples, part=20)
  size = sum(path.stat().st_size for path in tmp_path.iterdir())
  per_token = size / (20 * said.kept_T.sum())
  print(f"{per_token:.1f} bytes a token")
  assert per_token < 200


def test_the_whole_vocabulary_has_no_tail():
  rng = np.random.default_rng(3)
  _, said, _ = drawn(rng, T=8, C=7, vocab=7)
  read = signals.decode(KEY, signals.encode(KEY, said, 7))
  kept = said.kept_T
  np.testing.assert_array_equal(np.exp(read.tail_T[kept]), 0)
  np.testing.assert_allclose(
    read.logprobs_TC[kept], said.logprobs_TC[kept], atol=0.1
  )


def test_nothing_learned_takes_next_to_nothing():
  rng = np.random.default_rng(4)
  _, said, _ = drawn(rng, T=80, C=5, vocab=50)
  said = said._replace(kept_T=np.zeros(80, bool))
  data = signals.encode(KEY, said, 50)
  assert len(data) < 46 and not signals.decode(KEY, data).kept_T.any()


ABOUT = {"C": 4, "vocab": 20, "teacher": "a"}


def corpus(count, seed=5):
  rng = np.random.default_rng(seed)
  return [
    drawn(rng, T=rng.integers(3, 9), C=4, vocab=20)[:2] for _ in range(count)
  ]


def packed(examples, T=24):
  """Two rows: examples in another order than they were written in."""
  tokens, ids = np.zeros((2, T), np.int64), np.zeros((2, T), np.int32)
  places = []
  for b, chosen in enumerate(([3, 0], [4])):
    start = 0
    for segment, i in enumerate(chosen, 1):
      stop = start + len(examples[i][0])
      tokens[b, start:stop], ids[b, start:stop] = examples[i][0], segment
      places.append((b, slice(start, stop), i))
      start = stop
  return tokens, ids, places


def test_rows_find_their_own_in_any_order(tmp_path):
  examples = corpus(5)
  signals.write(tmp_path, ABOUT, examples, part=2)
  cache = signals.Cache(tmp_path)
  assert len(cache) == 5 and signals.done(tmp_path) == 3
  tokens, ids, places = packed(examples)
  found = cache.along(tokens, ids)
  for b, where, i in places:
    expected = signals.decode(KEY, signals.encode(KEY, examples[i][1], 20))
    np.testing.assert_array_equal(found.ids_BTC[b, where], expected.ids_TC)
    np.testing.assert_array_equal(
      found.logprobs_BTC[b, where], expected.logprobs_TC
    )
  assert np.isfinite(found.logprobs_BTC).all()


def test_other_tokens_are_an_error_and_not_a_target(tmp_path):
  examples = corpus(5)
  signals.write(tmp_path, ABOUT, examples, part=5)
  tokens, ids, _ = packed(examples)
  tokens[1, 1] += 1
  with pytest.raises(ValueError, match=r"row 1, segment 1.*another corpus"):
    signals.Cache(tmp_path).along(tokens, ids)


def test_a_killed_writer_goes_on(tmp_path):
  examples = corpus(5)

  def stream():
    yield from examples[:3]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    signals.write(tmp_path / "a", ABOUT, stream(), part=2)
  assert signals.done(tmp_path / "a") == 1
  signals.write(tmp_path / "a", ABOUT, examples[2:], part=2)
  signals.write(tmp_path / "b", ABOUT, examples, part=2)
  one, two = (
    {p.name: p.read_bytes() for p in (tmp_path / x).iterdir()} for x in "ab"
  )
  assert one == two
  with pytest.raises(ValueError, match="another folder"):
    signals.write(tmp_path / "a", ABOUT | {"teacher": "b"}, [], part=2)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_damaged_record_is_named(tmp_path, place):
  examples = corpus(5)
  signals.write(tmp_path, ABOUT, examples, part=5)
  path = tmp_path / "signals-00000.array_record"
  whole = path.read_bytes()
  key = signals.key_of(examples[3][0])
  record = signals.encode(key, examples[3][1], 20)
  start = whole.find(record[4:12])
  tokens, ids, _ = packed(examples)
  if start < 0:
    pytest.fail("records are no longer stored as they are")
  at = start + int(place * (len(record) - 8))
  path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
  with pytest.raises(ValueError, match=r"signals-00000.array_record: record 3"):
    signals.Cache(tmp_path).along(tokens, ids)


def other_order(path):
  """The files of two parts in each other's place."""
  one, two = (path / f"signals-0000{n}.array_record" for n in (0, 1))
  first = one.read_bytes()
  one.write_bytes(two.read_bytes())
  two.write_bytes(first)


def other_key(path):
  """A record that says, with a right checksum, that it is another's."""
  first, second = alike(2)
  records = [signals.encode(signals.key_of(first[0]), first[1], 20)]
  records.append(signals.encode(KEY, second[1], 20))
  file = str(path / "signals-00000.array_record")
  writer = array_record_module.ArrayRecordWriter(file, "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def other_keys(path):
  """What is found by a key is another's."""
  file = path / "signals-00000.keys"
  first, second = file.read_bytes()[:16], file.read_bytes()[16:]
  file.write_bytes(second + first)


def alike(count):
  """Examples of one length; example n starts with token n, as its first id."""
  out = []
  for n in range(count):
    ids_TC = np.tile(np.arange(n, n + 4, dtype=np.int32), (5, 1))
    logprobs_TC = np.full((5, 4), np.log(0.24))
    said = signals.Signals(
      np.ones(5, bool), ids_TC, logprobs_TC, np.full(5, np.log(0.04))
    )
    out.append((np.arange(n, n + 5), said))
  return out


@pytest.mark.parametrize("harm", [other_order, other_key, other_keys])
def test_anothers_record_is_an_error_and_not_a_target(tmp_path, harm):
  """Of the same length and whole, so that nothing but its key tells."""
  signals.write(tmp_path, ABOUT, alike(4), part=2)
  tokens_BT = np.arange(1, 6)[None]
  read = lambda: signals.Cache(tmp_path).along(tokens_BT, np.ones((1, 5), int))
  assert (read().ids_BTC == np.arange(1, 5)).all()
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}
  harm(tmp_path)
  place = "record 0" if harm is other_keys else "record 1"
  told = rf"signals-00000.array_record: {place}.* of the tokens .*write .* anew"
  with pytest.raises(ValueError, match=told):
    read()
  for path, content in before.items():
    path.write_bytes(content)
  assert (read().ids_BTC == np.arange(1, 5)).all()


def test_a_key_is_under_the_checksum():
  said = alike(1)[0][1]
  data = signals.encode(KEY, said, 20)
  assert (signals.decode(KEY, data).ids_TC == said.ids_TC).all()
  for at in (4, 19):
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(ValueError, match="checksum"):
      signals.decode(changed[4:20], changed)


def test_another_format_is_said(tmp_path):
  signals.write(tmp_path, ABOUT, corpus(2), part=2)
  (tmp_path / "about.json").write_text(json.dumps(ABOUT))  # as 1 had it
  with pytest.raises(ValueError, match=r"in format 1, and 2 is read.*anew"):
    signals.Cache(tmp_path)
  with pytest.raises(ValueError, match="another folder"):
    signals.write(tmp_path, ABOUT, corpus(2), part=2)


def test_no_cache_is_said(tmp_path):
  with pytest.raises(FileNotFoundError, match="no signals"):
    signals.Cache(tmp_path)
  (tmp_path / "about.json").write_text(json.dumps(ABOUT))
  with pytest.raises(FileNotFoundError, match="no signals"):
    signals.Cache(tmp_path)
