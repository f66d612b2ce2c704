"""From samples to pairs to a student that prefers; and its resumption."""

import dataclasses
import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import loop, pools, run
from experiments.stages import prefer
from research.models import peft, transformer
from research.types import Trace
from tests.experiments import test_fields, tiny
from tests.experiments.test_resume import assert_same, kill, logged

BETAS = {"small": 0.1, "medium": 0.2, "large": 0.5}
LORA = {"rank": 2, "alpha": 4.0, "targets": ("q", "down"), "rslora": False}
ADAPTED = {"lora": LORA, "base_bits": 8}


def write(task, problems, n, seed):
  """A teacher: right, right and too long, wrong by ten."""
  del seed
  assert n == 3
  for problem in problems:
    right = task.trace(problem, 0)
    steps, _, _ = right.partition("\n")
    for i, text in enumerate(
      (right, f"{steps}\n{right}", f"{steps}\n#### 1{problem.answer}")
    ):
      yield Trace(problem, text, i, "stop")


def preferred(**changes):
  return {
    "stage": "experiments.stages.prefer",
    "start": "distilled",
    "pairs": "{paired}/pairs.jsonl",
    "loss": {"name": "research.preferences.cogpo", "args": {}},
    "betas": BETAS,
    "rows": 8,
    "length": 80,
    "optimizer": tiny.optimizer(3e-3),
    "loop": {"steps": 20, "save_every": 5, "keep": 2, "best": None},
    "microbatches": 1,
  } | changes


def get_config():
  """Samples, sifted; pairs of them; a student; its preferences."""
  c = tiny.get_config("distil")
  c.annotate.teacher = "tests.experiments.test_prefer"
  c.annotate.samples = 3
  c.annotate.gates = (
    {"name": "research.annotation.verify", "args": {}},
    {"name": "research.annotation.select", "args": {"each": 1}},
  )
  c.paired = {
    "stage": "experiments.stages.pair",
    "problems": tiny.problems("train"),
    "count": 64,
    "suited": "{annotate}/traces.jsonl",
    "others": ("{annotate}/dropped.jsonl",),
  }
  c.preferred = preferred()
  c.stages = ("annotate", "paired", "distilled", "preferred")
  return c


def stage(**changes):
  c = json.loads(json.dumps(get_config().to_dict()))
  c["seed"] = changes.pop("seed", c["seed"])
  c["preferred"] |= changes
  return run.plan(c)["preferred"]


@pytest.fixture(scope="module", autouse=True)
def begun():
  """Stages before end with some parameters each, without being run."""
  fresh = transformer.init
  seed = lambda path: zlib.crc32(path.parent.name.encode())
  params = lambda path, model, mesh: fresh(model, jax.random.key(seed(path)))
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(loop, "load_params", params)
    yield


@pytest.fixture(scope="module")
def before(tmp_path_factory):
  """The outputs of the stages before this one."""
  stages = run.plan(json.loads(json.dumps(get_config().to_dict())))
  del stages["preferred"], stages["distilled"]
  done = run.execute(stages, tmp_path_factory.mktemp("before"))
  return done | {"distilled": {"folder": "distilled"}}


def log(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def train(inputs, workdir, **changes):
  """What the stage tells, and its log."""
  module, config = stage(**changes)
  workdir.mkdir(exist_ok=True)
  return module.run(config, inputs, workdir), log(workdir)


@pytest.fixture(scope="module")
def whole(before, tmp_path_factory):
  """(inputs, workdir, outputs, log) of a run that nobody disturbed."""
  workdir = tmp_path_factory.mktemp("whole") / "preferred"
  return before, workdir, *train(before, workdir)


def test_three_gaps_from_what_gates_let_through(before):
  told = before["paired"]
  assert told["pairs"] == {"small": 64, "medium": 64, "large": 64}
  assert (told["one_kind"], told["ungraded"], told["unread"]) == (0, 0, 0)


def test_a_student_prefers(whole):
  _, _, told, lines = whole
  assert told == {"pairs": 192, "too_long": 0}
  first, late = lines[0], lines[-5:]
  mean = lambda name: np.mean([line[name] for line in late])
  # The student is its own reference before the first step.
  assert first["loss"] == pytest.approx(np.log(2), abs=1e-4)
  assert abs(first["margin"]) < 1e-4
  assert mean("loss") < 0.8 * first["loss"]
  assert mean("margin") > 0.3 and mean("accuracy") > 0.6
  assert 0 < first["fill"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, ADAPTED])
def test_a_broken_run_ends_as_a_whole_one(
  before, whole, tmp_path, monkeypatch, changes
):
  """Broken off behind a checkpoint and two steps that it does not have."""
  _, workdir, told, _ = whole
  if changes:
    workdir = tmp_path / "whole" / "preferred"
    workdir.parent.mkdir()
    told, lines = train(before, workdir, **changes)
    assert abs(lines[0]["margin"]) < 1e-4  # 8 bits are the reference, too
    assert lines[-1]["loss"] < lines[0]["loss"]
  drawn = pools.of_step

  def dies(pairs, seed, step, count):
    if step == 7:
      raise KeyboardInterrupt
    return drawn(pairs, seed, step, count)

  with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
    broken.setattr(pools, "of_step", dies)
    train(before, tmp_path / "preferred", **changes)
  assert not (tmp_path / "preferred" / "checkpoints" / "00000020").exists()
  again, _ = train(before, tmp_path / "preferred", **changes)
  assert again == told
  assert_same(tmp_path, workdir.parent, "preferred")


@pytest.mark.slow
def test_a_kill_changes_nothing(before, recipe, start, finish, tmp_path):
  pairs = str(Path(before["paired"]["folder"], "pairs.jsonl"))
  changes = {"preferred": preferred(pairs=pairs), "distilled.loop.steps": 4}
  changes["stages"] = ("annotate", "distilled", "preferred")
  config = recipe("distil", changes)
  code, _, err = finish(tmp_path / "whole", config=config)
  assert code == 0, err
  broken = tmp_path / "broken"
  kill(start(broken, config=config), broken, logged("preferred", 6))
  code, out, err = finish(broken, config=config)
  assert code == 0, err
  assert out.count("done before") == 2
  assert_same(broken, tmp_path / "whole", "preferred")


def test_a_pair_a_row_with_its_beta(before):
  found, _ = prefer.read(stage()[1], before)
  rows = prefer.lay_out(found[:3], 80, pad=260)
  for batch, side in ((rows.chosen, 0), (rows.rejected, 1)):
    for b, pair in enumerate(found[:3]):
      size = len(pair[side]["tokens"])
      np.testing.assert_array_equal(
        batch.tokens_BT[b, :size], pair[side]["tokens"]
      )
      assert batch.segments_BT[b].sum() == size
  betas_B1 = np.array([list(BETAS.values())])[:, [0, 1, 2]].T
  there_BT = rows.chosen.segments_BT > 0
  np.testing.assert_allclose(rows.beta_BT, np.where(there_BT, betas_B1, 0))


PAIR = {"prompt": "p", "chosen": "yes", "rejected": "no"}


def reading(tmp_path, lines, **changes):
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  changes = {"betas": {}} | changes
  return prefer.read(stage(pairs=str(path), **changes)[1], {})


def test_pairs_too_long_are_told(tmp_path):
  lines = [PAIR, PAIR | {"chosen": "y" * 80}, PAIR | {"rejected": "n" * 80}]
  found, too_long = reading(tmp_path, lines)
  assert (len(found), too_long) == (1, 2)


@pytest.mark.parametrize(
  ("lines", "changes", "said"),
  [
    ([PAIR, {"prompt": "p", "chosen": "yes"}], {}, r"jsonl:2: `rejected` must"),
    ([{"prompt": "p", "rejected": "no"}], {}, r"jsonl:1: `chosen` must"),
    ([PAIR | {"prompt": " "}], {}, "`prompt` must be text"),
    ([PAIR | {"rejected": "yes"}], {}, "jsonl:1: .*are the same"),
    ([PAIR | {"chosen": "y" * 90}], {}, "none of 1 pairs fits 80.*raise"),
    ([], {}, "holds no pairs"),
    ([PAIR, PAIR | {"beta": 0.1}], {}, "some pairs have a beta"),
    ([PAIR | {"beta": 0}], {}, "beta 0 is no number above 0"),
    ([PAIR | {"beta": "x"}], {}, "beta 'x' is no number above 0"),
    ([PAIR], {"betas": BETAS}, "the gap None is none of"),
    ([PAIR | {"gap": ["x"]}], {"betas": BETAS}, r"the gap \['x'\] is none"),
    ([PAIR | {"gap": "x"}], {"betas": {"x": -1.0}}, "-1.0 is no number above"),
  ],
)
def test_lines_that_are_no_pair(tmp_path, lines, changes, said):
  with pytest.raises(ValueError, match=said):
    reading(tmp_path, lines, **changes)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"rows": 0}, "at least 1"),
    ({"microbatches": 3}, "8 rows cannot be cut into 3"),
    ({"length": 97}, "longer than the model's context of 96"),
    ({"base_bits": 8}, "every parameter is trained"),
    ({"start": "annotated"}, "'annotated', which does not run before"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)


class Look(test_fields.Stage):
  """The stage between recorders, as it was drawn for by the loop."""

  def __init__(self, before, workdir, monkeypatch, **changes):
    self.fitted = None
    module, config = stage(**changes)
    monkeypatch.setattr(loop, "fit", self.fit)
    monkeypatch.setattr(peft, "save", lambda *_, **__: None)
    workdir.mkdir(parents=True)
    self.outputs = module.run(config, before, workdir)

  def draw(self, step):
    now = SimpleNamespace(frozen=self.fitted.frozen)
    return self.fitted.draw(now, step)

  def inputs(self):
    return [test_fields.numbers(self.draw(step)) for step in range(2)]

  def step(self):
    frozen = self.fitted.frozen
    state = dataclasses.replace(self.fitted.abstract, frozen=frozen)
    lowered = jax.jit(self.fitted.step).lower(state, self.draw(0)[0])
    return lowered.as_text()


DPO = {"name": "research.preferences.dpo", "args": {"beta": 0.1}}
SIGHTS = [
  ("inputs", {}, {"seed": 1}),
  ("inputs", {}, {"start": "annotate"}),
  ("inputs", {}, {"pairs": "turned.jsonl"}),
  ("inputs", {}, {"rows": 4}),
  ("inputs", {}, {"length": 72}),
  ("inputs", {}, {"betas": BETAS | {"large": 0.4}}),
  ("frozen", ADAPTED, {"base_bits": 4}),
  ("state", ADAPTED, {"lora": LORA | {"rank": 3}}),
  ("loop", {}, {"loop": {"steps": 13, "save_every": 5}}),
  ("step", {}, {"loss": DPO}),
  ("step", {"loss": DPO}, {"loss": DPO | {"args": {"beta": 0.2}}}),
  ("step", {}, {"optimizer": tiny.optimizer(2e-3)}),
  ("step", {}, {"microbatches": 2}),
]


@pytest.mark.parametrize(
  ("sight", "base", "changes"),
  [
    pytest.param(*look, marks=[pytest.mark.slow] if look[0] == "step" else [])
    for look in SIGHTS
  ],
)
def test_a_field_changes_something(
  before, tmp_path, monkeypatch, sight, base, changes
):
  if "pairs" in changes:
    path = tmp_path / changes["pairs"]
    lines = Path(before["paired"]["folder"], "pairs.jsonl").read_text()
    path.write_text("".join(reversed(lines.splitlines(keepends=True))))
    changes = {"pairs": str(path)}
  seen = [
    getattr(Look(before, tmp_path / f"{i}" / "x", monkeypatch, **c), sight)()
    for i, c in enumerate((base, base, base | changes))
  ]
  assert seen[0] == seen[1] != seen[2]


def test_every_field_is_looked_at():
  """Those of the run are the other stages', too."""
  looked = {name for _, base, changes in SIGHTS for name in (*base, *changes)}
  fields = {field.name for field in dataclasses.fields(prefer.Config)}
  assert fields - {"run"} <= looked
