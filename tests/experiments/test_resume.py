"""A broken-off run, started again, ends as an unbroken one, bit for bit."""

import json
import os
import random
import re
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from research.training import checkpoint

DISTIL = "tests/experiments/tiny.py:distil"
STEPS = {"answer_only": 12, "distilled": 24, "reinforced": 6}
STEPS |= {"polished": 12, "climbed": 12}
LOGS = ("*/done.json", "*/*.jsonl", "*/*/*.jsonl", "summary.json")


def array(text):
  """The shape that "float32[4, 8]" or "key<fry>[]" describes."""
  kind, sizes = re.fullmatch(r"(.*)(\[.*\])", text).groups()
  dtype = jax.random.key(0).dtype if kind.startswith("key") else kind
  return jax.ShapeDtypeStruct(tuple(json.loads(sizes)), dtype)


def state(folder, step):
  """All of a checkpoint: its leaves as bytes, by name, and the host's part."""
  metadata = folder / f"{step:08d}" / "checkpoint" / "host" / "metadata"
  record = json.loads(metadata.read_text())
  abstract = {name: array(text) for name, text in record["leaves"].items()}
  leaves, host = checkpoint.restore(folder, abstract, step=step)
  for name in record["keys"]:
    leaves[name] = jax.random.key_data(leaves[name])
  return host, {name: np.asarray(x).tobytes() for name, x in leaves.items()}


def evidence(workdir, only=""):
  """Every number that a run (or one stage) leaves, by name, to the last bit."""
  found = {}
  for folder in workdir.glob(f"{only}*/checkpoints"):
    name = folder.relative_to(workdir)
    found[f"{name}"] = sorted(path.name for path in folder.iterdir())
    for step in checkpoint.steps(folder):
      found[f"{name}/{step}"] = state(folder, step)
  for pattern in LOGS:
    for path in workdir.glob(pattern):
      found[str(path.relative_to(workdir))] = path.read_bytes()
  return {name: x for name, x in found.items() if name.startswith(only)}


def assert_same(workdir, unbroken, only=""):
  actual, wanted = evidence(workdir, only), evidence(unbroken, only)
  assert actual.keys() == wanted.keys()
  assert not [name for name in wanted if actual[name] != wanted[name]]


def logged(stage, step):
  """Reached when a stage has logged a step."""
  at = lambda w: w / stage / "metrics.jsonl"
  return lambda w: at(w).exists() and at(w).read_bytes().count(b"\n") > step


def sampled(stage, step):
  """Reached when a step's answers are there, and their update is not logged."""
  later = logged(stage, step)
  name = f"{stage}/rollouts/{step:06d}.jsonl"
  return lambda w: (w / name).exists() and not later(w)


def writing(stage, after=0):
  """Reached while a stage writes a checkpoint of a step behind `after`."""
  folder = lambda w: w / stage / "checkpoints"
  drafts = lambda w: [p.name for p in folder(w).glob("tmp-0*")]
  return lambda w: any(int(name[4:]) > after for name in drafts(w))


def written(name):
  """Reached when a file or a folder is there."""
  return lambda workdir: (workdir / name).exists()


def stop_at(process, workdir, reached, delay=0.0):
  """Stops a process at a moment: it is still that moment when this returns."""
  while True:
    while not reached(workdir):
      assert process.poll() is None, process.communicate()
      time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    if reached(workdir):
      return
    process.send_signal(signal.SIGCONT)


def kill(process, workdir, reached, delay=0.0):
  with process:
    stop_at(process, workdir, reached, delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
  assert process.returncode == -signal.SIGKILL


def test_two_kills_change_nothing(start, finish, unbroken, tmp_path):
  kill(start(tmp_path), tmp_path, writing("distilled"))
  assert list(tmp_path.glob("distilled/checkpoints/tmp-*"))
  kill(start(tmp_path), tmp_path, sampled("reinforced", 3))
  code, out, err = finish(tmp_path)
  assert code == 0, err
  assert out.count("done before") == 3
  assert_same(tmp_path, unbroken)


@pytest.mark.slow
def test_eight_kills_change_nothing(start, finish, unbroken, tmp_path):
  """Moments are drawn anew in each stage; the delays behind them as well."""
  rng = random.Random(8)
  step = lambda stage: logged(stage, rng.randrange(STEPS[stage] - 2))
  moments = {
    "annotate": written("annotate"),
    "answer_only": step("answer_only"),
    "distilled": step("distilled"),
    "a checkpoint's write": writing("distilled", after=15),
    "reinforced": step("reinforced"),
    "before an update": sampled("reinforced", 4),
    "polished": logged("polished", rng.randrange(8, 11)),  # both have been read
    "climbed": logged("climbed", rng.randrange(6, 11)),  # up one level
    "evaluate": written("evaluate/samples/home-answer_only.jsonl"),
    "evaluate later": written("evaluate/samples/hard-answer_only.jsonl"),
  }
  for name, reached in moments.items():
    delay = 0.0 if "write" in name else rng.uniform(0, 0.05)
    kill(start(tmp_path), tmp_path, reached, delay)
  code, _, err = finish(tmp_path)
  assert code == 0, err
  assert_same(tmp_path, unbroken)


def test_sigterm_saves_and_the_run_goes_on(start, finish, unbroken, tmp_path):
  with start(tmp_path, config=DISTIL) as process:
    stop_at(process, tmp_path, logged("distilled", 6))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate()
  assert process.returncode == 0, err
  step = int(re.search(r"stopped and saved at step (\d+)", out)[1])
  assert 7 <= step < STEPS["distilled"]
  assert checkpoint.steps(tmp_path / "distilled" / "checkpoints")[-1] == step
  assert not (tmp_path / "distilled" / "done.json").exists()
  # A run that began anew would write this line anew.
  log = tmp_path / "distilled" / "metrics.jsonl"
  log.write_text(log.read_text().replace('"step": 0,', '"step":  0,', 1))
  code, _, err = finish(tmp_path, config=DISTIL)
  assert code == 0, err
  assert '"step":  0,' in log.read_text()
  log.write_text(log.read_text().replace('"step":  0,', '"step": 0,', 1))
  assert_same(tmp_path, unbroken, "distilled")


def test_sigterm_between_steps_ends_quietly(start, tmp_path):
  with start(tmp_path, config=DISTIL) as process:
    stop_at(process, tmp_path, written("annotate"))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate()
  assert (process.returncode, err) == (0, "")


def flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def truncate(file):
  os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
  ("damage", "reason"),
  [
    (flip, "does not match its SHA-256"),
    pytest.param(truncate, "bytes, manifest.json says", marks=pytest.mark.slow),
  ],
)
def test_damage_is_named_and_the_checkpoint_before_used(
  finish, unbroken, tmp_path, damage, reason
):
  for stage in ("annotate", "distilled"):
    shutil.copytree(unbroken / stage, tmp_path / stage)
  (tmp_path / "distilled" / "done.json").unlink()
  folder = tmp_path / "distilled" / "checkpoints"
  before, newest = checkpoint.steps(folder)
  files = [p for p in (folder / f"{newest:08d}").rglob("*") if p.is_file()]
  damage(max(files, key=lambda file: file.stat().st_size))
  code, _, err = finish(tmp_path, config=DISTIL)
  assert code == 0, err
  assert f"{newest:08d} is damaged" in err and reason in err
  assert before < newest == STEPS["distilled"]
  assert_same(tmp_path, unbroken, "distilled")


def test_evidence_notices(unbroken, tmp_path):
  """The comparison sees a bit in a state, a digit in a log, a missing file."""
  shutil.copytree(unbroken / "distilled", tmp_path / "distilled")
  assert_same(tmp_path, unbroken, "distilled")
  log = tmp_path / "distilled" / "metrics.jsonl"
  log.write_text(log.read_text().replace("1", "2", 1))
  with pytest.raises(AssertionError, match="metrics"):
    assert_same(tmp_path, unbroken, "distilled")
  shutil.copytree(
    unbroken / "distilled" / "checkpoints",
    tmp_path / "answer_only" / "checkpoints",
  )
  with pytest.raises(AssertionError, match=r"answer_only/checkpoints"):
    assert_same(tmp_path, unbroken, "answer_only")
