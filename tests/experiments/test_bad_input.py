"""What a user gets wrong costs one clear line, and nothing that was there."""

import json
import shutil
import signal
import subprocess

import pytest

from experiments import loop, settings
from experiments.resolve import resolve
from research import sharding
from research.training import checkpoint
from tests.disk import small_disk

TINY = "tests/experiments/tiny.py"
ROW = {"question": "How many are 2 and 2?", "answer": "2+2=4\n#### 4"}


def refused(told, *words):
  """Asserts that a run ended with one line of error that holds these words."""
  assert isinstance(told, str), "the run ended well"
  assert told.startswith("error: ") and "\n" not in told
  for word in words:
    assert word in told


FLAGS = {
  "a config that is not there": (("--config=nope.py",), ("nope.py",)),
  "one with a field": (("--config=nope.py", "--config.seed=1"), ("nope.py",)),
  "a folder": (("--config=tests/experiments",), ("tests/experiments",)),
  "an empty path": (("--config=",), ("config",)),
  "a field that is not there": (
    ("--config.distilled.lopp.steps=3",),
    ("lopp", "loop"),
  ),
  "at the top": (("--config.rows=3",), ("rows",)),
  "below a number": (("--config.seed.x=3",), ("seed.x",)),
  "text for a number": (("--config.seed=abc",), ("config.seed", "abc")),
  "a fraction for a count": (("--config.seed=1.5",), ("config.seed", "1.5")),
  "a number for a part": (("--config.distilled=3",), ("config.distilled",)),
  "an unknown flag": (("--confg=3",), ("confg", "config")),
  "a word that is no flag": (("junk",), ("junk",)),
}


@pytest.mark.parametrize("flags, words", FLAGS.values(), ids=FLAGS)
def test_flags(here, tmp_path, flags, words):
  refused(here(tmp_path / "run", *flags), *words)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["config", "workdir"])
def test_a_flag_is_missing(here, tmp_path, name):
  given = {"workdir": tmp_path / "run", "config": TINY} | {name: None}
  refused(here(**given), f"--{name} is missing")


RECIPES = {
  "a typo": ({"distilled.lenght": 3}, "distilled.lenght", "length"),
  "a deep typo": ({"distilled.loop.sleeps": 3}, "distilled.loop.sleeps"),
  "at the top": ({"distiled": {}}, "distiled"),
  "in the model": ({"model.widht": 3}, "widht", "width"),
  "no such preset": ({"model.preset": "huge"}, "huge", "tiny"),
  "a fraction for a count": ({"distilled.rows": 8.0}, "distilled.rows", "8.0"),
  "truth for a count": ({"distilled.rows": True}, "distilled.rows", "bool"),
  "text for a rate": (
    {"distilled.optimizer.learning_rate": "1e-3"},
    "distilled.optimizer.learning_rate",
  ),
  "no such choice": (
    {"distilled.optimizer.schedule": "cosinus"},
    "distilled.optimizer.schedule",
    "cosine",
  ),
  "wrong in the model": ({"model.width": "32"}, "model.width"),
  "wrong in a list": ({"distilled.corpora": [3]}, "distilled.corpora[0]"),
  "a stage without its part": (
    {"stages": ["annotate", "distilled", "more"]},
    "config.more",
  ),
  "a part that is no stage": ({"stages": ["annotate"]}, "distilled"),
  "no such module": ({"distilled.stage": "experiments.stages.x"}, "stages.x"),
  "a module without stage": ({"distilled.stage": "experiments.loop"}, "loop"),
  "no steps": ({"distilled.loop.steps": 0}, "steps=0"),
  "never saved": ({"distilled.loop.save_every": 0}, "save_every=0"),
  "no such loss": ({"distilled.loss.name": "research.losses.x"}, "losses.x"),
  "no such task": ({"annotate.problems.task": "research.tasks.x"}, "tasks.x"),
  "vocabulary": ({"model.vocab": 100}, "bytes", "261", "100", "vocab"),
  "tokenizer": ({"tokenizer": "nope.json"}, "nope.json"),
  "too many devices": ({"mesh.data": 16}, "16", "mesh"),
}


@pytest.mark.parametrize("case", RECIPES.values(), ids=RECIPES)
def test_recipes(here, recipe, tmp_path, case):
  """All of these are noticed before a folder is made."""
  changes, *words = case
  config = recipe("distil", changes)
  refused(here(tmp_path / "run", config=config), *words)
  assert not (tmp_path / "run").exists()


def test_in_a_terminal(finish, recipe, tmp_path):
  """The line is all there is on standard error, before and in a stage."""
  early = recipe("distil", {"distilled.rows": "8"})
  late = recipe("distil", {"annotate.problems.split": "tset"})
  for config, word in ((early, "distilled.rows"), (late, "tset")):
    code, _, err = finish(tmp_path / "run", config=config)
    assert code == 1
    assert err.count("\n") == 1
    refused(err.rstrip("\n"), word)


def gsm8k(folder, cache):
  args = {"data_dir": str(folder), "cache_dir": str(cache)}
  task = "research.tasks.gsm8k"
  return {"annotate.problems": {"task": task, "split": "train", "args": args}}


def test_no_data(here, recipe, tmp_path):
  config = recipe("distil", gsm8k(tmp_path / "nowhere", tmp_path / "cache"))
  told = here(tmp_path / "run", config=config)
  refused(
    told, "nowhere", "grade-school-math", "--config.data_dir", "PITH_DATA"
  )


@pytest.mark.parametrize(
  "rows, words",
  [
    ([ROW], ("'train'", "empty")),  # all of it stands in test as well
    ([], ("train.jsonl", "no problems")),
  ],
  ids=["nothing left", "empty file"],
)
def test_an_empty_split(here, recipe, tmp_path, rows, words):
  folder = tmp_path / "data" / "gsm8k"
  folder.mkdir(parents=True)
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "train.jsonl").write_text(lines)
  (folder / "test.jsonl").write_text(json.dumps(ROW) + "\n")
  config = recipe("distil", gsm8k(tmp_path / "data", tmp_path / "cache"))
  refused(here(tmp_path / "run", config=config), *words)


@pytest.fixture(scope="module")
def distilled(finish, tmp_path_factory):
  """A run of two stages: shorter to wait for than the unbroken one."""
  workdir = tmp_path_factory.mktemp("distilled")
  code, _, err = finish(workdir, config=f"{TINY}:distil")
  assert code == 0, err
  return workdir


@pytest.fixture
def begun(distilled, tmp_path):
  """A run whose first two stages are done, and the next may be anything."""
  for stage in ("annotate", "distilled"):
    shutil.copytree(distilled / stage, tmp_path / "run" / stage)
  return tmp_path / "run"


def test_another_config(here, distilled, begun):
  shutil.copy(distilled / "config.json", begun)
  before = {p: p.stat().st_mtime_ns for p in begun.rglob("*")}
  changes = ("--config.seed=1", "--config.distilled.loop.steps=5")
  told = here(begun, *changes, config=f"{TINY}:distil")
  refused(told, "another config", "seed: 0 is now 1", "distilled.loop.steps")
  assert {p: p.stat().st_mtime_ns for p in before} == before


LATER = {
  "rows over the context": (
    {"distilled.length": 128},
    ("128", "context", "96"),
  ),
  "no text fits a row": ({"distilled.length": 4}, ("4",)),
  "rows over shards": ({"distilled.shards": 3}, ("rows (8)", "shards (3)")),
  "no such corpus": (
    {"distilled.corpora": [{"path": "nope.jsonl"}]},
    ("nope.jsonl",),
  ),
  "no such stage in a path": (
    {"distilled.corpora": [{"path": "{anotate}/traces.jsonl"}]},
    ("anotate",),
  ),
  "an argument that the loss lacks": (
    {"distilled.loss.args": {"blok": 3}},
    ("blok",),
  ),
  "an argument that the task lacks": (
    {"annotate.problems.args": {"lenghts": (1, 2)}},
    ("lenghts",),
  ),
}


@pytest.mark.parametrize("changes, words", LATER.values(), ids=LATER)
def test_in_a_stage(here, recipe, tmp_path, changes, words):
  """Noticed when the stage begins; what a stage said is kept in full."""
  told = here(tmp_path / "run", config=recipe("distil", changes))
  refused(told, *words)
  log = tmp_path / "run" / "error.log"
  if "error.log" in told:
    assert str(log) in told
    assert "Traceback" in log.read_text()


def test_a_prompt_over_the_context(here, recipe, begun):
  evaluate = {
    "stages": ["annotate", "distilled", "evaluate"],
    "evaluate": resolve("tests.experiments.tiny").evaluate("distilled"),
  }
  evaluate["evaluate"]["suites"][0]["new_tokens"] = 96
  told = here(begun, config=recipe("distil", evaluate))
  refused(told, "prompt 0", "96 new", "context of 96", "new_tokens")


def restorable(folder):
  """The step of the newest checkpoint, whose parameters can be read."""
  plain = resolve("tests.experiments.tiny").get_config().model.to_dict()
  model = settings.build(settings.Model, plain)
  assert loop.load_params(folder, model, sharding.make_mesh())
  return checkpoint.steps(folder)[-1]


def test_a_loss_that_is_not_finite(finish, recipe, begun):
  """It stops, the good checkpoint stays, and a better config goes on there."""
  (begun / "distilled" / "done.json").unlink()
  folder = begun / "distilled" / "checkpoints"
  steps, rate = "distilled.loop.steps", "distilled.optimizer.learning_rate"
  rare = {"distilled.loop.save_every": 10}
  config = recipe("distil", {steps: 30, rate: 1e30} | rare)
  code, _, err = finish(begun, config=config)
  refused(err.rstrip("\n"), "step 24", "finite", f"{folder}/00000024 is good")
  assert (code, restorable(folder)) == (1, 24)
  (begun / "config.json").unlink()
  code, _, err = finish(begun, config=recipe("distil", {steps: 26}))
  assert (code, err, restorable(folder)) == (0, "", 26)


def test_not_finite_before_any_checkpoint(finish, tmp_path):
  rate = "--config.distilled.optimizer.learning_rate=1e30"
  code, _, err = finish(tmp_path, rate, config=f"{TINY}:distil")
  refused(err.rstrip("\n"), "not finite", "none was saved")
  assert code == 1
  assert not checkpoint.steps(tmp_path / "distilled" / "checkpoints")


@pytest.mark.parametrize(
  "size", ["800k", pytest.param("20k", marks=pytest.mark.slow)]
)
def test_a_full_disk(finish, tmp_path, size):
  """In a checkpoint or in a log; with more room the same command goes on."""
  config = f"{TINY}:distil"
  with small_disk(tmp_path / "disk", f"size={size}") as root:
    code, _, err = finish(root / "run", config=config)
    refused(err.rstrip("\n"), "is full", str(root / "run"), "command again")
    assert code == 1
    whole = checkpoint.steps(root / "run" / "distilled" / "checkpoints")
    assert bool(whole) == (size == "800k")
    more = ["mount", "-o", "remount,size=50m", str(root)]
    subprocess.run(more, check=True)
    code, _, err = finish(root / "run", config=config)
    assert (code, err) == (0, "")


def test_a_disk_that_is_read_only(here, tmp_path):
  with small_disk(tmp_path / "disk", "ro") as root:
    refused(here(root / "run"), str(root / "run"), "Read-only", "another")
  (tmp_path / "file").touch()
  refused(here(tmp_path / "file"), str(tmp_path / "file"), "another")


def test_a_second_run(start, here, tmp_path):
  config = f"{TINY}:distil"
  with start(tmp_path / "run", config=config) as first:
    while not (tmp_path / "run" / "config.json").exists():
      assert first.poll() is None
    first.send_signal(signal.SIGSTOP)
    told = here(tmp_path / "run", config=config)
    first.kill()
  refused(told, "another run", str(tmp_path / "run"))
