"""What the program runs, writes down, says, and does not do twice."""

import copy
import importlib
import itertools
import json
import pathlib

import pytest

from experiments import pools, run
from experiments.configs import r1_zero
from research.rewards import form
from tests.experiments import counted

COUNTED = "tests/experiments/counted.py"
EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


def read(path):
  return json.loads(path.read_text())


def count(workdir, stage):
  return len((workdir / stage / "count").read_text())


def test_stages_run_in_order_and_leave_a_record(here, tmp_path, capsys):
  assert here(tmp_path, "--config.seed=5", config=COUNTED) is None
  first = {"folder": str(tmp_path / "first")} | read(
    tmp_path / "first" / "done.json"
  )
  assert first["seen"] == {}
  assert read(tmp_path / "second" / "done.json")["seen"] == {"first": first}
  about = read(tmp_path / "config.json")
  assert about["config"]["seed"] == 5
  assert about["config"]["first"]["ends"] == "well"
  assert about["versions"].keys() == set(run.PACKAGES)
  assert about["commit"] and about["device"] and about["started"]
  found = read(tmp_path / "summary.json")
  assert list(found) == ["first/pass@1", "second/pass@1"]
  assert found["second/pass@1"]["mean"] == 0.25
  assert "<html" in (tmp_path / "report.html").read_text()
  out = capsys.readouterr().out
  assert "0.250" in out and "report.html" in out.replace("\n", "")


def test_a_finished_stage_is_not_run_twice(here, tmp_path, capsys):
  for _ in range(2):
    assert here(tmp_path, config=COUNTED) is None
  assert capsys.readouterr().out.count("done before") == 2
  assert count(tmp_path, "first") == count(tmp_path, "second") == 1
  (tmp_path / "second" / "done.json").unlink()
  assert here(tmp_path, config=COUNTED) is None
  assert (count(tmp_path, "first"), count(tmp_path, "second")) == (1, 2)


def test_a_stage_that_fails_loses_no_other(here, tmp_path):
  config = f"{COUNTED}:first=well;second=ValueError"
  for tries in (1, 2):
    assert here(tmp_path, config=config).startswith("error: planted")
    assert (count(tmp_path, "first"), count(tmp_path, "second")) == (1, tries)
  assert (tmp_path / "first" / "done.json").exists()
  assert not (tmp_path / "second" / "done.json").exists()
  assert not (tmp_path / "summary.json").exists()


def test_a_dry_run_writes_nothing(here, tmp_path, capsys):
  assert here(tmp_path / "new", "--dry_run", config=COUNTED) is None
  assert not (tmp_path / "new").exists()
  out = capsys.readouterr().out
  assert "M parameters" in out and out.count("to do") == 2
  failing = f"{COUNTED}:first=well;second=OSError"
  here(tmp_path / "old", config=failing)
  files = lambda: {
    p: (p.stat().st_mtime_ns, p.stat().st_size)
    for p in (tmp_path / "old").rglob("*")
  }
  before = files()
  assert here(tmp_path / "old", "--dry_run", config=failing) is None
  out = capsys.readouterr().out
  assert "counted, done" in out and "counted, to do" in out
  assert files() == before


@pytest.mark.parametrize("kind", counted.ENDS)
def test_the_trace_of_an_error_is_kept(here, tmp_path, kind):
  told = here(tmp_path, config=f"{COUNTED}:first={kind}")
  assert told.startswith("error: ") and "planted" in told
  log = tmp_path / "error.log"
  text = log.read_text()
  assert "Traceback" in text and kind in text and "counted.py" in text
  plain = kind in ("OSError", "FloatingPointError")
  assert (str(log) in told) == (not plain)
  assert (kind in told) == (kind in ("TypeError", "RuntimeError"))


def test_a_mistake_has_no_trace(here, tmp_path):
  assert here(tmp_path, config=COUNTED) is None
  told = here(tmp_path, "--config.seed=1", config=COUNTED)
  assert "another config (seed: 0 is now 1)" in told
  assert not (tmp_path / "error.log").exists()
  told = here(tmp_path, config=f"{COUNTED}:first=well;third=well")
  assert "second: {" in told and "third: None is now {" in told
  assert here(tmp_path, config=COUNTED) is None


def config(**changes):
  return copy.deepcopy(counted.get_config().to_dict()) | changes


@pytest.mark.parametrize("name", ["seed", "tokenizer", "model", "mesh",
                                  "stages", "first"])  # fmt: skip
def test_a_plan_misses_a_part(name):
  whole = config()
  del whole[name]
  with pytest.raises(ValueError, match=rf"config\.{name}.* is missing"):
    run.plan(whole)


def test_a_plan_is_not_empty():
  shared = ("seed", "tokenizer", "model", "mesh")
  empty = {name: config()[name] for name in shared} | {"stages": []}
  with pytest.raises(ValueError, match="nothing would run"):
    run.plan(empty)
  nameless = config(first={"ends": "well"})
  with pytest.raises(ValueError, match=r"config\.first\.stage is missing"):
    run.plan(nameless)


@pytest.mark.parametrize("behind", ["second", "third", "nothing"])
def test_a_stage_that_is_spoken_of_runs_before(behind):
  address = "tests.experiments.counted"
  stage = {"stage": address, "ends": "well"}
  plan = config(second=stage | {"behind": "first"})
  assert run.plan(plan)["second"][1].behind == "first"
  plan["second"] = stage | {"behind": behind}
  plan |= {"third": stage, "stages": ("first", "second", "third")}
  with pytest.raises(ValueError, match=f"speaks of the stage '{behind}'"):
    run.plan(plan)


def test_a_tokenizer_larger_than_the_model():
  whole = config()
  whole["model"] |= {"vocab": 261}
  assert run.plan(whole)
  whole["model"] |= {"vocab": 260}
  with pytest.raises(ValueError, match=r"261 tokens .* 260 rows: raise"):
    run.plan(whole)


RECIPES = sorted(
  f"{folder}/{path.stem}"
  for folder in ("configs", "ablations")
  for path in (EXPERIMENTS / folder).glob("[a-z]*.py")
)


def test_there_are_recipes():
  assert {"configs/quickstart", "ablations/signals"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_plan(here, tmp_path, name):
  said = (EXPERIMENTS / f"{name}.py").read_text()
  forms = ("", ":test", ":small") if "`:small`" in said else ("", ":test")
  for arg in forms:
    path = f"experiments/{name}.py{arg}"
    given = []
    if not arg and "base.directory" in said:
      given = ["--config.base.directory=bytes"]  # a checkpoint's tokenizer
    assert here(tmp_path / "run", "--dry_run", *given, config=path) is None


DRAWN = {f"research.tasks.{name}" for name in ("chain", "countdown")}
DRAWN |= {"research.tasks.multiplication"}


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_small_recipe_asks_at_the_end_is_there(name):
  """A task may end sooner, and would tell so when all has been trained."""
  module = importlib.import_module(f"experiments.{name.replace('/', '.')}")
  small = "`:small`" in (module.__doc__ or "")
  if not small and "base.directory" in (module.__doc__ or ""):
    pytest.skip("a published checkpoint's, without a small form")
  config = module.get_config("small" if small else "").to_json()
  plan = run.plan(json.loads(config))
  suites = [s for _, c in plan.values() for s in getattr(c, "suites", ())]
  for suite in suites:
    if suite.problems.task in DRAWN and suite.problems.path is None:
      assert pools.pool(suite.problems, suite.count, 0, {})


def test_no_part_of_r1_zeros_prompt_has_its_form():
  """Nor all of it; who copies it twice has a thought between the two."""
  asked = r1_zero.ASK.format(prompt="What is 3 + 4?")
  assert "<think>" in asked and "</think>" in asked
  parts = itertools.combinations(range(len(asked) + 1), 2)
  assert not any(form.bonus(asked[i:j]) for i, j in parts)
  assert form.bonus(f"<think>{asked[:6]}</think> 7") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_small(finish, tmp_path, request, name):
  path = EXPERIMENTS / f"{name}.py"
  given = []
  if "config.data_dir" in path.read_text():
    given = [f"--config.data_dir={request.getfixturevalue('data_dir')}"]
  code, _, err = finish(tmp_path, *given, config=f"{path}:test", optimised=True)
  assert code == 0, err
  assert (tmp_path / "report.html").exists()
  assert read(tmp_path / "summary.json")
