import errno
import logging
import os
import random
import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import types
from research.training import checkpoint, manifest
from tests.disk import small_disk

HOST = {"positions": [3, 1, 4], "config": {"seed": 7, "name": "é"}, "x": None}


def _state(seed=0, width=4):
  key = jax.random.key(seed)
  params = {
    "w": jax.random.normal(key, (width, 3), jnp.bfloat16),
    "layers": (jnp.arange(width, dtype=jnp.int8), jnp.float32(0.1)),
  }
  optimizer = optax.adamw(1e-3)
  return types.TrainState(
    step=jnp.asarray(seed, jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.split(jax.random.key(seed, impl="rbg"), 2),
    extra={"critic": key},
  )


def _abstract(state):
  return jax.eval_shape(lambda: state)


def _bytes(leaf):
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf).tobytes()


def _assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert _bytes(a) == _bytes(b)


def _fill(directory, steps, **args):
  with checkpoint.Checkpointer(directory, **args) as saver:
    for step in steps:
      saver.save(step, _state(step), {"step": step}, metric=-abs(step - 2))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """A directory with checkpoints 1 and 2; tests copy it before they harm it."""
  directory = tmp_path_factory.mktemp("two")
  _fill(directory, [1, 2])
  return directory


@pytest.fixture
def copy(two, tmp_path):
  subprocess.run(["cp", "-a", f"{two}/.", str(tmp_path)], check=True)
  return tmp_path


def test_round_trip_is_bitwise(tmp_path):
  state = _state(5)
  with checkpoint.Checkpointer(tmp_path) as saver:
    assert saver.restore(_abstract(state)) is None
    saver.save(5, state, HOST)
    restored, host = saver.restore(_abstract(state))
  _assert_same(restored, state)
  assert host == HOST
  assert restored.frozen is None
  draws = [jax.random.bits(s.key[1], (8,)) for s in (restored, state)]
  np.testing.assert_array_equal(*draws)
  with pytest.raises(AssertionError):
    _assert_same(restored, _state(6))


def test_save_copies_before_it_returns(tmp_path):
  increment = jax.jit(lambda x: x + 1, donate_argnums=0)
  x, host = increment(jnp.zeros((512, 512))), {"seen": [1]}
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(1, {"x": x}, host)
    host["seen"].append(2)
    for _ in range(5):
      x = increment(x)
    restored, host = saver.restore(
      {"x": jax.ShapeDtypeStruct(x.shape, x.dtype)}
    )
  np.testing.assert_array_equal(restored["x"], np.ones(x.shape))
  np.testing.assert_array_equal(x, np.full(x.shape, 6))
  assert host == {"seen": [1]}


def test_save_does_not_wait_for_the_write(tmp_path, monkeypatch):
  gate, seal = threading.Event(), manifest.seal
  monkeypatch.setattr(manifest, "seal", lambda p: (gate.wait(20), seal(p)))
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(1, _state(), HOST)
    assert saver.steps() == []
    gate.set()
    saver.wait()
    assert saver.steps() == [1]


@pytest.mark.parametrize(
  "args, left",
  [
    ({"keep": 2}, [4, 5]),
    ({"keep": 1, "best": "max"}, [2, 5]),
    ({"keep": 2, "best": "min"}, [4, 5]),
    ({"keep": 9}, [0, 2, 3, 4, 5]),
  ],
)
def test_keeps_the_last_and_the_best(tmp_path, args, left):
  with checkpoint.Checkpointer(tmp_path, **args) as saver:
    for step in [0, 2, 3, 4, 5]:
      saver.save(step, {"x": jnp.ones(3)}, None, metric=-abs(step - 2.0))
  assert checkpoint.steps(tmp_path) == left
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == [f"{step:08d}" for step in left]


def test_best_step_survives_a_restart_and_ignores_nan(tmp_path):
  state = {"x": jnp.ones(3)}
  metrics = {0: 0.5, 1: float("nan"), 2: None, 3: 0.5}
  for step, metric in metrics.items():
    with checkpoint.Checkpointer(tmp_path, keep=1, best="max") as saver:
      saver.save(step, state, step, metric)
  assert checkpoint.steps(tmp_path) == [0, 3]
  assert checkpoint.best_step(tmp_path, "max") == 0
  _, host = checkpoint.restore(tmp_path, _abstract(state), step=0)
  assert host == 0
  with pytest.raises(FileNotFoundError, match=r"no checkpoint 7 .*\[0, 3\]"):
    checkpoint.restore(tmp_path, _abstract(state), step=7)


def test_an_existing_step_is_replaced(copy):
  with checkpoint.Checkpointer(copy) as saver:
    saver.save(2, _state(8), "again")
    state, host = saver.restore(_abstract(_state()))
    assert saver.steps() == [1, 2]
  _assert_same(state, _state(8))
  assert host == "again"


def _largest(path):
  return max(path.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)


def _flip(path, byte, bit):
  data = bytearray(path.read_bytes())
  data[byte] ^= 1 << bit
  path.write_bytes(data)


def _truncate(path):
  file = _largest(path)
  os.truncate(file, file.stat().st_size - 1)


def _flip_largest(path):
  _flip(_largest(path), 30, 3)


DAMAGES = {
  "is missing": lambda p: _largest(p / "checkpoint").unlink(),
  "is not in manifest.json": lambda p: (p / "surplus").touch(),
  "bytes, manifest.json says": lambda p: _truncate(p / "checkpoint"),
  "does not match its SHA-256": lambda p: _flip_largest(p / "checkpoint"),
  "manifest.json is missing": lambda p: (p / "manifest.json").unlink(),
  "manifest.json is not": lambda p: (p / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damaged_newest_is_named_and_the_one_before_used(copy, reason, caplog):
  DAMAGES[reason](copy / "00000002")
  with caplog.at_level(logging.WARNING):
    state, host = checkpoint.restore(copy, _abstract(_state()))
  assert "00000002 is damaged" in caplog.text and reason in caplog.text
  assert host == {"step": 1}
  _assert_same(state, _state(1))
  with pytest.raises(RuntimeError, match="00000002 is damaged"):
    checkpoint.restore(copy, _abstract(_state()), step=2)


def test_a_damaged_later_step_does_not_crowd_out_a_new_one(copy):
  _flip_largest(copy / "00000002" / "checkpoint")
  (copy / "00000002").rename(copy / "00000009")
  with checkpoint.Checkpointer(copy, keep=1) as saver:
    assert saver.restore(_abstract(_state()))[1] == {"step": 1}
    saver.save(5, _state(5), "new")
  assert checkpoint.steps(copy) == [5]
  assert checkpoint.restore(copy, _abstract(_state()))[1] == "new"


def test_a_whole_checkpoint_gives_no_warning(two, caplog):
  with caplog.at_level(logging.WARNING):
    _, host = checkpoint.restore(two, _abstract(_state()))
  assert host == {"step": 2} and caplog.text == ""


def test_all_damaged_is_an_error_that_names_each(copy):
  for step in (1, 2):
    _flip_largest(copy / f"{step:08d}" / "checkpoint")
  with pytest.raises(RuntimeError, match=r"00000002 is dam.*00000001 is dam"):
    checkpoint.restore(copy, _abstract(_state()))


def test_forty_of_forty_bit_flips_are_noticed(copy):
  newest, rng = copy / "00000002", random.Random(0)
  files = sorted(
    p for p in newest.rglob("*") if p.is_file() and p.stat().st_size
  )
  assert manifest.damage(newest) is None
  noticed, touched = 0, set()
  for i in range(40):
    file = files[i % len(files)]
    byte, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
    _flip(file, byte, bit)
    noticed += manifest.damage(newest) is not None
    touched.add(file.name)
    _flip(file, byte, bit)
  assert noticed == 40
  assert manifest.MANIFEST in touched and len(touched) >= 8
  assert manifest.damage(newest) is None


CHANGES = {
  r"critic is .* absent in the state": lambda s: s.replace(extra=None),
  "frozen/b is absent in the che": lambda s: s.replace(frozen={"b": s.step}),
  r"int32\[\] .*32\[2\]": lambda s: s.replace(step=jnp.zeros(2, jnp.int32)),
  r"step is int32.*float32": lambda s: s.replace(step=jnp.zeros(())),
  r"key is key<rbg>.*key<fry>": lambda s: s.replace(key=jax.random.key(0)),
  "; and 3 more": lambda s: _state(width=5),
}


@pytest.mark.parametrize("text", CHANGES)
def test_another_tree_is_an_error_that_names_the_leaf(two, text):
  with pytest.raises(ValueError, match=text):
    checkpoint.restore(two, _abstract(CHANGES[text](_state())))


def test_one_branch_restores_alone(two):
  params = _state(2).params
  restored, _ = checkpoint.restore(two, _abstract(params), only="params")
  _assert_same(restored, params)
  with pytest.raises(ValueError, match="extra/layers/0 is absent in"):
    checkpoint.restore(two, _abstract(params), only="extra")


def test_what_cannot_be_saved_is_refused_at_once(tmp_path):
  with checkpoint.Checkpointer(tmp_path) as saver:
    with pytest.raises(TypeError, match="a/b is a int"):
      saver.save(1, {"a": {"b": 3}}, None)
    with pytest.raises(TypeError, match=r"not JSON: .*set"):
      saver.save(1, {"a": jnp.ones(1)}, {"x": {1}})
    with pytest.raises(ValueError, match="share a name"):
      saver.save(1, {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}, None)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["save", "wait", "close"])
def test_background_errors_surface(copy, monkeypatch, where):
  def fail(path):
    raise OSError(errno.EIO, "planted")

  saver = checkpoint.Checkpointer(copy)
  with monkeypatch.context() as patch:
    patch.setattr(manifest, "seal", fail)
    saver.save(3, _state(3), None)
    args = (4, _state(4), None) if where == "save" else ()
    with pytest.raises(OSError, match=r"checkpoint 3 .*planted") as caught:
      getattr(saver, where)(*args)
  assert str(copy) in str(caught.value)
  assert sorted(p.name for p in copy.iterdir()) == ["00000001", "00000002"]
  if where != "close":
    saver.save(5, _state(5), None)
    saver.close()
    assert saver.steps() == [1, 2, 5]


def test_half_written_directories_are_swept(copy):
  (copy / "tmp-00000003" / "checkpoint").mkdir(parents=True)
  (copy / "tmp-00000003" / "checkpoint" / "data").write_bytes(b"half")
  assert checkpoint.steps(copy) == [1, 2]
  checkpoint.Checkpointer(copy).close()
  assert sorted(p.name for p in copy.iterdir()) == ["00000001", "00000002"]


@pytest.mark.parametrize("args", [{"keep": 0}, {"best": "biggest"}])
def test_bad_arguments_are_refused(tmp_path, args):
  with pytest.raises(ValueError, match="must be"):
    checkpoint.Checkpointer(tmp_path, **args)


def test_read_only_directory_is_a_clear_error_at_once(tmp_path):
  with small_disk(tmp_path / "disk", "ro") as disk:
    with pytest.raises(OSError, match="need a writable directory") as caught:
      checkpoint.Checkpointer(disk / "checkpoints")
    assert str(disk) in str(caught.value)
  (tmp_path / "file").touch()
  with pytest.raises(OSError, match="need a writable directory"):
    checkpoint.Checkpointer(tmp_path / "file")


def test_full_disk_names_the_directory_and_loses_nothing(tmp_path, capfd):
  large = {"x": jax.random.normal(jax.random.key(0), (700, 700))}
  small = {"x": jnp.arange(9.0)}
  with small_disk(tmp_path / "disk", "size=1m") as disk:
    saver = checkpoint.Checkpointer(disk)
    saver.save(1, small, "kept")
    saver.wait()
    with pytest.raises(OSError, match="no space left") as caught:
      saver.save(2, large, "lost")
      saver.wait()
    assert caught.value.errno == errno.ENOSPC
    assert str(disk) in str(caught.value)
    assert os.listdir(disk) == ["00000001"]
    assert saver.restore(_abstract(small))[1] == "kept"
    saver.save(3, small, "after")
    saver.close()
    assert checkpoint.steps(disk) == [1, 3]
  assert "Traceback" not in capfd.readouterr().err
