"""A judge of answers or of their lines: its labels, training and measure."""

import dataclasses
import json
import zlib

import jax
import numpy as np
import pytest

from experiments import loop, pools, run
from experiments.stages import judge
from research.data import text
from research.models import transformer
from research.tasks import multiplication
from research.types import Problem, Steps, Trajectory, Verdict
from tests.experiments import tiny
from tests.experiments.test_fields import numbers
from tests.experiments.test_resume import assert_same

HERE = "tests.experiments.test_judge"


def problems(split, seed, *, names="abcdefghijkl"):
  del split, seed
  for name in names:
    yield Problem(f"{name}?", "", {"key": name, "difficulty": 1})


def reward(problem, text):
  del problem
  if "?" in text:
    return Verdict("error", None)
  right = "n" not in text
  return Verdict("correct" if right else "wrong", float(right))


def first_error(problem, text):
  """A line with an "n" is wrong."""
  del problem
  lines = text.split("\n")
  wrong = (i for i, line in enumerate(lines) if "n" in line)
  return next(((i, "y") for i in wrong), None)


TEXTS = ["y\nyy", "yyy\ny", "yy\nnn", "n\ny", "what?"]


def stage(**changes):
  c = json.loads(json.dumps(tiny.get_config("distil").to_dict()))
  fields = {
    "stage": "experiments.stages.judge",
    "start": "distilled",
    "problems": {"task": HERE, "split": "train", "args": {}},
    "count": 12,
    "held_out": 4,
    "samples": ["{annotate}/traces.jsonl"],
    "loss": {"name": "research.reward_models.outcome", "args": {}},
    "rows": 8,
    "length": 24,
    "optimizer": tiny.optimizer(1e-2),
    "loop": {"steps": 20, "save_every": 5},
  }
  c["seed"] = changes.pop("seed", c["seed"])
  c["judge"] = fields | changes
  c["stages"] = ("annotate", "distilled", "judge")
  return run.plan(c)["judge"]


def written(folder, texts=TEXTS, names="abcdefghijkl"):
  """A stage's outputs: the same texts at each problem."""
  folder.mkdir(parents=True)
  lines = [
    json.dumps({"key": name, "completion": said}) + "\n"
    for name in names
    for said in texts
  ]
  (folder / "traces.jsonl").write_text("".join(lines))
  more = json.dumps({"key": names[0], "completion": "yyyy"})
  (folder / "more.jsonl").write_text(more + "\n")
  return {"annotate": {"folder": str(folder)}, "distilled": {"folder": "x"}}


@pytest.fixture(scope="module", autouse=True)
def begun():
  """Stages before end with some parameters each, without being run."""
  fresh = transformer.init
  seed = lambda path: zlib.crc32(path.parent.name.encode())
  params = lambda path, model, mesh: fresh(model, jax.random.key(seed(path)))
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(loop, "load_params", params)
    yield


def train(root, **changes):
  module, config = stage(**changes)
  inputs = written(root / "annotate")
  return again(root, module, config, inputs)


def again(root, module, config, inputs):
  (root / "judge").mkdir(exist_ok=True)
  told = module.run(config, inputs, root / "judge")
  lines = (root / "judge" / "metrics.jsonl").read_text().splitlines()
  return told, [json.loads(line) for line in lines]


PROCESS = {"name": "research.reward_models.process", "args": {}}


@pytest.mark.parametrize("changes", [{}, {"loss": PROCESS}])
def test_a_judge_learns_what_is_right(tmp_path, changes):
  told, lines = train(tmp_path, **changes)
  assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-4)
  assert np.mean([line["loss"] for line in lines[-5:]]) < 0.5
  left = {"unread": 0, "ungraded": 0 if changes else 12, "too_long": 0}
  texts = 5 if changes else 4
  counts = {"trained_on": 8 * texts, "held_out": 4 * texts} | left
  assert {name: told[name] for name in counts} == counts
  # of 8 lines that are judged at each problem 2 are wrong
  share = 0.75 if changes else 0.5
  assert told["majority"] == pytest.approx(share)
  for name, value in told["summary"].items():
    assert value["n"] == 4 and value["low"] <= value["mean"] <= value["high"]
    assert value["mean"] > (0.8 if "accuracy" in name else 0.9)
  assert set(told["summary"]) == {"judge/accuracy", "judge/auc"}


@pytest.mark.slow  # as preferences, drawn and held the same way
def test_a_broken_run_ends_as_a_whole_one(tmp_path, monkeypatch):
  whole, _ = train(tmp_path / "whole")
  drawn = pools.of_step

  def dies(taught, seed, step, count):
    if step == 7:
      raise KeyboardInterrupt
    return drawn(taught, seed, step, count)

  with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
    broken.setattr(pools, "of_step", dies)
    train(tmp_path / "broken")
  inputs = {"annotate": {"folder": str(tmp_path / "broken" / "annotate")}}
  told, _ = again(
    tmp_path / "broken", *stage(), inputs | {"distilled": {"folder": "x"}}
  )
  assert told == whole
  assert_same(tmp_path / "broken", tmp_path / "whole", "judge")


def test_lines_up_to_the_first_wrong_one():
  """Of a product: its sound lines, then the wrong one, and nothing behind."""
  tokenizer = text.load_tokenizer("bytes")
  problem = next(iter(multiplication.problems("train", 3, ((2, 2),))))
  lines = multiplication.trace(problem, 0).split("\n")
  assert len(lines) > 3

  def judged(lines):
    said = "\n".join(lines)
    record = {"prompt": problem.prompt, "completion": said}
    example = text.example(tokenizer, record)
    found = judge.of_lines(tokenizer, multiplication, problem, said, example)
    places = np.flatnonzero(found["ends"])
    tokens = found["tokens"]
    last = ["".join(map(chr, tokens[p - 3 : p + 1])) for p in places]
    assert last == [line[-4:] for line in lines[: len(places)]]
    assert (tokens[places + 1] == ord("\n"))[:-1].all()
    return found["labels"][places].tolist()

  assert judged(lines) == [1] * len(lines)
  assert judged([lines[0], lines[1] + "0", *lines[2:]]) == [1, 0]
  assert judged(lines[:2]) == [1, 1]  # what is missing is no wrong line


def test_what_a_loss_hears():
  tokenizer = text.load_tokenizer("bytes")
  record = {"prompt": "a?", "completion": "y\nn"}
  example = text.example(tokenizer, record)
  problem = next(problems("train", 0))
  here = __import__(HERE, fromlist=["x"])
  whole = judge.of_answer(here, problem, "y\nn", example)
  lines = judge.of_lines(tokenizer, here, problem, "y\nn", example)
  size = len(example["tokens"])
  rows, ends_BT = judge.lay_out([judge.Judged("a", whole)], Trajectory, 9, 260)
  assert not rows.rewards_BT.any() and np.flatnonzero(ends_BT) == size - 1
  rows, ends_BT = judge.lay_out([judge.Judged("a", lines)], Steps, 9, 260)
  assert rows.labels_BT[ends_BT > 0].tolist() == [1, 0]


SIGHTS = [
  ("inputs", {"seed": 1}),
  ("inputs", {"samples": ["{annotate}/traces.jsonl", "{annotate}/more.jsonl"]}),
  ("inputs", {"count": 11}),
  (
    "inputs",
    {
      "problems": {
        "task": HERE,
        "split": "train",
        "args": {"names": "lkjihgfedcba"},
      }
    },
  ),
  ("inputs", {"held_out": 5}),
  ("inputs", {"loss": PROCESS}),
  ("inputs", {"rows": 4}),
  ("inputs", {"length": 32}),
  ("state", {"start": "annotate"}),
  ("loop", {"loop": {"steps": 13, "save_every": 5}}),
  ("step", {"optimizer": tiny.optimizer(2e-3)}),
  ("step", {"microbatches": 2}),
]


@pytest.mark.parametrize(
  ("sight", "changes"),
  [
    pytest.param(*look, marks=[pytest.mark.slow] if look[0] == "step" else [])
    for look in SIGHTS
  ],
)
def test_a_field_changes_something(tmp_path, monkeypatch, sight, changes):
  inputs = written(tmp_path / "annotate", names="abcdefghijk")
  seen = []

  def fit(loop, workdir, state, abstract, step, draw, *, config):
    del workdir, config
    now = state()
    sights = {
      "inputs": lambda: [numbers(draw(now, i)) for i in range(3)],
      "state": lambda: numbers(now.params),
      "loop": lambda: loop,
      "step": lambda: jax.jit(step).lower(abstract, draw(now, 0)[0]).as_text(),
    }
    seen.append(sights[sight]())
    return now

  monkeypatch.setattr(loop, "fit", fit)
  for fields in ({}, {}, changes):
    module, config = stage(**fields)
    module.run(config, inputs, tmp_path / "x")
  assert seen[0] == seen[1] != seen[2]


def test_every_field_is_looked_at():
  looked = {name for _, changes in SIGHTS for name in changes}
  fields = {field.name for field in dataclasses.fields(judge.Config)}
  assert fields - {"run"} <= looked


@pytest.mark.parametrize(
  ("changes", "texts", "said"),
  [
    ({}, ["y"], "of what is trained on.*right and wrong are wanted"),
    ({"length": 4}, TEXTS, "'too_long': 60"),
    ({"count": 4, "held_out": 2}, TEXTS, "'e' is none of the 4 problems"),
    (
      {"loss": {"name": "research.reward_models.pairwise"}},
      TEXTS,
      "hears neither",
    ),
    (
      {"loss": {"name": "research.reward_models.implicit"}},
      TEXTS,
      "hears neither",
    ),
    (
      {"loss": PROCESS}
      | {"problems": {"task": "tests.experiments.test_pair", "split": "train"}},
      TEXTS,
      "has no first_error",
    ),
  ],
)
def test_nothing_to_learn(tmp_path, changes, texts, said):
  module, config = stage(**changes)
  inputs = written(tmp_path / "annotate", texts)
  with pytest.raises(ValueError, match=said):
    module.run(config, inputs, tmp_path)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"held_out": 0}, "some to train on"),
    ({"held_out": 12}, "some to train on"),
    ({"samples": []}, "at least 1"),
    ({"rows": 0}, "at least 1"),
    ({"microbatches": 3}, "8 rows cannot be cut into 3"),
    ({"length": 97}, "longer than the model's context of 96"),
  ],
)
def test_bad_plans(changes, said):
  with pytest.raises(ValueError, match=said):
    stage(**changes)
