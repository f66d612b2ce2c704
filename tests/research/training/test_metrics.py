import errno
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from research.training import metrics
from tests.disk import small_disk


def _pairs(step):
  loss = (jnp.asarray(3.0 + step, jnp.float32), jnp.asarray(2.0))
  return {"loss": loss, "acc/exact": (step, 4)}


def _lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _run(workdir, start, stop):
  with metrics.Writer(workdir, start) as writer:
    for step in range(start, stop):
      writer.write(step, _pairs(step))


def test_merge_is_exact_over_unequal_microbatches():
  values = np.arange(12.0, dtype=np.float32)
  whole = {"x": (values.sum(), len(values))}
  parts = [{"x": (p.sum(), len(p))} for p in np.split(values, [1, 4, 11])]
  merged = metrics.mean(metrics.merge(*parts))
  assert merged == metrics.mean(whole) == {"x": 5.5}
  naive = np.mean([metrics.mean(p)["x"] for p in parts])
  assert naive != merged["x"]


def test_merge_keeps_names_of_single_parts_and_runs_under_jit():
  merge = jax.jit(lambda a, b: metrics.merge(a, b))
  merged = merge({"a": (1.0, 2.0)}, {"a": (3.0, 2.0), "b": (5.0, 1.0)})
  assert metrics.mean(merged) == {"a": 1.0, "b": 5.0}


def test_zero_denominator_is_left_out():
  pairs = {"none": (jnp.zeros(()), jnp.zeros(())), "one": (1.0, 1.0)}
  assert metrics.mean(pairs) == {"one": 1.0}


def test_degenerate_groups_counts_23_of_25_and_says_so():
  group = np.repeat(np.arange(25), 4)
  rewards = (group % 2).astype(np.float64)
  rewards[[0, 40]] = 0.5
  pair = metrics.degenerate_groups(rewards, group)
  assert pair == (23, 25)
  assert metrics.degenerate_groups([0.0, 1.0], [0, 1]) == (0, 0)  # of one each
  means = metrics.mean({"degenerate_groups": pair})
  assert means == {"degenerate_groups": 0.92}
  assert metrics.diagnose(means) == ["92 % of groups have equal rewards"]


@pytest.mark.parametrize(
  "means, start, word",
  [
    ({"truncated": 0.4}, None, "cut off"),
    ({"unparsed": 1.0}, None, "100 % of samples hold no answer"),
    ({"ungraded": 1.0}, None, "100 % of samples could not be graded"),
    ({"timeout": 0.1}, None, "graded for too long"),
    ({"ratio_outside": 0.06}, None, "ratios"),
    ({"reward": 0, "entropy": 0.01}, {"entropy": 1.0}, "collapsed"),
    ({"reward": 0, "entropy": 3.1}, {"entropy": 1.0}, "from 1.00 to 3.10"),
    ({"too_long": 3.0}, None, "3 examples were longer"),
  ],
)
def test_diagnose_names_the_smell(means, start, word):
  (line,) = metrics.diagnose(means, start)
  assert word in line


def test_diagnose_is_silent_on_a_healthy_step():
  means = {
    "degenerate_groups": 0.5,
    "truncated": 0.02,
    "ungraded": 0.01,
    "unparsed": 0.1,
    "ratio_outside": 0.01,
    "reward": 0.5,
    "entropy": 1.4,
    "too_long": 0.0,
  }
  assert metrics.diagnose(means, {"entropy": 1.0}) == []
  assert metrics.diagnose({}) == []


def test_writer_holds_back_one_step(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    assert writer.write(0, _pairs(0)) is None
    assert _lines(tmp_path) == []
    assert writer.write(1, _pairs(1)) == {"loss": 1.5, "acc/exact": 0.0}
    assert [line["step"] for line in _lines(tmp_path)] == [0]
    with pytest.raises(ValueError, match="step 1 after step 1"):
      writer.write(1, _pairs(1))
    assert writer.flush() == {"loss": 2.0, "acc/exact": 0.25}
    assert writer.flush() is None
    assert _lines(tmp_path)[1] == {"step": 1, "loss": 2.0, "acc/exact": 0.25}


@pytest.mark.parametrize("tail", [b"", b'{"step": 6, "lo', b"\xff"])
def test_killed_run_leaves_the_log_of_an_uninterrupted_one(tmp_path, tail):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  _run(whole, 0, 8)
  _run(killed, 0, 6)
  with (killed / "metrics.jsonl").open("ab") as f:
    f.write(tail)
  _run(killed, 3, 8)
  logs = [(d / "metrics.jsonl").read_bytes() for d in (whole, killed)]
  assert logs[0] == logs[1] and logs[0].count(b"\n") == 8


def test_whole_last_line_without_its_newline_is_kept(tmp_path):
  log = tmp_path / "metrics.jsonl"
  log.write_bytes(b'{"step": 0}\n{"step": 1}')
  metrics.repair(log, 5)
  assert log.read_bytes() == b'{"step": 0}\n{"step": 1}\n'


@pytest.mark.parametrize("bad", [b"{torn", b"5", b'{"loss": 1.0}'])
def test_a_bad_line_in_the_middle_is_named(tmp_path, bad):
  log = tmp_path / "metrics.jsonl"
  log.write_bytes(b'{"step": 0}\n' + bad + b'\n{"step": 2}\n')
  with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
    metrics.Writer(tmp_path, 3)


def test_non_finite_values_stay_json(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    writer.write(0, {"loss": (jnp.asarray(jnp.nan), 1.0)})
  assert _lines(tmp_path) == [{"step": 0, "loss": None}]


def _events(path):
  data, at = path.read_bytes(), 0
  while at < len(data):
    size = int.from_bytes(data[at : at + 8], "little")
    record = data[at + 12 : at + 12 + size]
    stated = int.from_bytes(data[at + 12 + size : at + 16 + size], "little")
    assert masked_crc32c(record) == stated
    yield event_pb2.Event.FromString(record)
    at += 16 + size


def _scalars(path):
  return [
    (event.step, value.tag, value.simple_value)
    for event in _events(path)
    for value in event.summary.value
  ]


def test_tensorboard_events_of_two_sessions(tmp_path):
  _run(tmp_path, 0, 3)
  _run(tmp_path, 2, 4)
  files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda p: p.suffix)
  assert len(files) == 2
  seen = [_scalars(f) for f in files]
  assert seen[0][:2] == [(0, "acc/exact", 0.0), (0, "loss", 1.5)]
  assert [s for s, tag, _ in seen[1] if tag == "loss"] == [2, 3]
  marks = [e.step for e in _events(files[1]) if e.HasField("session_log")]
  assert marks == [2]


def test_rollouts_are_replaced_whole(tmp_path):
  rows = [{"prompt": "1+1", "reward": 1.0}, {"prompt": "é", "reward": None}]
  for _ in range(2):
    path = metrics.write_rollouts(tmp_path, 7, rows)
  assert path == tmp_path / "rollouts" / "000007.jsonl"
  assert [json.loads(x) for x in path.read_text().splitlines()] == rows
  with pytest.raises(ValueError):
    metrics.write_rollouts(tmp_path, 7, [{"reward": float("nan")}])
  assert len(path.read_text().splitlines()) == 2
  assert [p.name for p in path.parent.iterdir()] == ["000007.jsonl"]


def test_full_disk_is_one_error_that_names_the_log(tmp_path):
  with small_disk(tmp_path / "disk", "size=128k") as disk:
    with (
      pytest.raises(OSError, match=r"metrics were not written") as caught,
      metrics.Writer(disk) as writer,
    ):
      for step in range(10_000):
        writer.write(step, _pairs(step))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(disk / "metrics.jsonl")
    metrics.repair(disk / "metrics.jsonl", 10)
    assert [line["step"] for line in _lines(disk)] == list(range(10))


def test_extremes_stay_extremes_when_parts_are_joined():
  """A part of which there was nothing has a denominator of 0."""
  parts = [
    {"ratio_min": (0.5, 1.0), "ratio_max": (2.0, 1.0), "loss": (1.0, 4.0)},
    {"ratio_min": (np.inf, 0.0), "ratio_max": (-np.inf, 0.0)},
    {"ratio_min": (0.7, 1.0), "ratio_max": (3.0, 1.0), "loss": (2.0, 2.0)},
  ]
  for order in itertools.permutations(parts):
    means = metrics.mean(metrics.merge(*order))
    assert means == {"ratio_min": 0.5, "ratio_max": 3.0, "loss": 0.5}
  nothing = metrics.merge(parts[1], parts[1])
  assert metrics.mean(nothing) == {}
