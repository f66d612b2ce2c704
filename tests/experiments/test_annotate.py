"""A teacher's traces, gate by gate: nothing is lost, and all is counted."""

import collections
import hashlib
import json

import pytest
from ml_collections import ConfigDict

from experiments import run
from experiments.configs import quickstart
from experiments.resolve import resolve
from research.tasks import chain
from research.types import Trace
from tests.experiments import tiny
from tests.research.teachers.server import served

HERE = "tests.experiments.test_annotate"
VERIFY = {"name": "research.annotation.verify"}
CALLS = []


def write(task, problems, n, seed, *, lies=3):
  """A teacher that errs on every few traces, and says nothing on the first."""
  CALLS.append(seed)
  for i, problem in enumerate(problems):
    for sample in range(n):
      if i == sample == 0:
        yield Trace(problem, None, sample, "error", error="no luck")
      else:
        lie = (i + sample) % lies == 0
        text = chain.trace(problem, 0) + "1" * lie
        yield Trace(problem, text, sample, "stop", 7)
  return {"said": "bye"}


def config(**changes):
  c = tiny.get_config("distil").to_dict()
  del c["distilled"]
  c["stages"] = ("annotate",)
  c["annotate"] |= {"teacher": HERE, "count": 12, "gates": [VERIFY]} | changes
  return c


def annotate(folder, inputs=(), **changes):
  """Runs the stage; returns its outputs."""
  folder.mkdir(parents=True, exist_ok=True)
  module, built = run.plan(config(**changes))["annotate"]
  return module.run(built, dict(inputs), folder)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def problem_keys(rows):
  return [row["key"] for row in rows]


# What commit 739b30b wrote, when the solver verified its own traces.
BEFORE = {
  ("annotate_short", 0): ("99b3f714ab360200", "855998b0e29f9134"),
  ("annotate_long", 0): ("323002f413931620", "30b14922a0305e2d"),
  ("annotate_short", 3): ("9ce73f72bdece74e", "0aa0c21c80c96377"),
  ("annotate_long", 3): ("23d7dab9272df105", "5e2c615eb39e7c18"),
}


@pytest.mark.parametrize("name, seed", BEFORE)
def test_the_quickstart_reads_what_it_always_read(tmp_path, name, seed):
  c = quickstart.get_config().to_dict()
  c["seed"], c[name]["count"] = seed, 700
  module, built = run.plan(c)[name]
  module.run(built, {}, tmp_path)
  found = tuple(
    hashlib.sha256((tmp_path / f"{x}.jsonl").read_bytes()).hexdigest()[:16]
    for x in ("traces", "answers")
  )
  assert found == BEFORE[name, seed]


def test_nothing_is_lost(tmp_path):
  gates = [
    {"name": "research.annotation.format", "args": {"longest": 24}},
    VERIFY,
    {"name": "research.annotation.select", "args": {"count": 9}},
  ]
  said = annotate(tmp_path / "annotate", samples=2, gates=gates)
  folder = tmp_path / "annotate"
  kept, lost = lines(folder / "traces.jsonl"), lines(folder / "dropped.jsonl")
  assert len(kept) + len(lost) == 24 and len(kept) == said["kept"] == 9
  counts = json.loads((folder / "gates.json").read_text())["gates"]
  assert counts == said["gates"]
  names = [count["gate"] for count in counts]
  assert names == ["written", *(gate["name"] for gate in gates)]
  for count, following in zip(counts, [*counts[1:], {"in": 9}], strict=True):
    told = [row["reason"] for row in lost if row["gate"] == count["gate"]]
    assert count["dropped"] == collections.Counter(told)
    assert count["in"] - len(told) == count["out"] == following["in"]
  assert counts[0]["dropped"] == {"error": 1} and counts[1]["dropped"]
  assert counts[2]["dropped"]["wrong"] > 0
  assert lost[0]["detail"] == "no luck" and lost[0]["completion"] is None
  assert said["teacher"] == [{"said": "bye"}]
  assert said["summary"] == {
    "annotate_0_written": 23,
    "annotate_1_format": counts[1]["out"],
    "annotate_2_verify": counts[2]["out"],
    "annotate_3_select": 9,
  }


def test_what_is_written_is_right_and_has_an_answer_a_problem(tmp_path):
  annotate(tmp_path / "annotate", samples=3)
  kept = lines(tmp_path / "annotate" / "traces.jsonl")
  answers = lines(tmp_path / "annotate" / "answers.jsonl")
  assert sorted(kept[0]) == ["completion", "key", "prompt"]
  for row in kept:
    answer = next(a for a in answers if a["key"] == row["key"])
    assert row["completion"].endswith(f"\n{answer['completion']}")
    assert row["completion"] != answer["completion"]
  assert len(kept) > len(answers) == len({*problem_keys(kept)})


def test_a_problem_that_comes_twice_is_there_twice(tmp_path):
  """As epochs do: what is learned from answers is as much as from traces."""
  few = {"task": "research.tasks.chain", "split": "train"}
  few |= {"args": {"lengths": (1, 1)}}
  solver = "research.teachers.solver"
  annotate(tmp_path / "annotate", problems=few, count=300, teacher=solver)
  files = [tmp_path / "annotate" / f"{x}.jsonl" for x in ("traces", "answers")]
  traces, answers = map(lines, files)
  assert problem_keys(traces) == problem_keys(answers)
  assert len(traces) == 300 > len({*problem_keys(traces)})


def test_the_same_seed_writes_the_same_bytes(tmp_path):
  for name in "ab":
    annotate(tmp_path / name / "annotate", samples=2)
  for path in (tmp_path / "a" / "annotate").iterdir():
    assert (
      path.read_bytes() == (tmp_path / "b/annotate" / path.name).read_bytes()
    )


def test_when_nothing_is_left_it_says_why(tmp_path):
  with pytest.raises(
    ValueError, match=r"no trace is left of 12.*verify as wrong"
  ):
    annotate(tmp_path / "annotate", args={"lies": 1})
  counts = json.loads((tmp_path / "annotate" / "gates.json").read_text())
  assert counts["gates"][1]["dropped"] == {"wrong": 11}


def test_a_broken_solver_is_named(tmp_path):
  guard = VERIFY | {"args": {"in_a_row": 5}}
  with pytest.raises(ValueError, match="rejects 5 traces in a row"):
    annotate(tmp_path / "annotate", args={"lies": 1}, gates=[guard])


WRONG = {
  "samples": ({"samples": 0}, ValueError, "samples 0"),
  "an argument of a gate": (
    {"gates": [VERIFY | {"args": {"in_row": 5}}]},
    TypeError,
    "in_row",
  ),
  "no such gate": (
    {"gates": [{"name": "research.annotation.magic"}]},
    ValueError,
    "magic",
  ),
  "no gate": ({"gates": [{"name": "research.splits"}]}, AttributeError, "sift"),
  "nothing to compare with": (
    {"gates": [{"name": "research.annotation.decontaminate"}]},
    ValueError,
    "held_out",
  ),
  "no critic": (
    {"gates": [{"name": "research.annotation.critique"}]},
    ValueError,
    "critic",
  ),
  "neither problems nor a path": ({"held_out": [{}]}, ValueError, "either"),
  "problems without a count": (
    {"held_out": [{"problems": tiny.problems("test")}]},
    ValueError,
    "count",
  ),
  "no such file": (
    {"held_out": [{"path": "nope.jsonl"}]},
    FileNotFoundError,
    "nope.jsonl",
  ),
}


@pytest.mark.parametrize("changes, error, words", WRONG.values(), ids=WRONG)
def test_a_mistake_costs_no_request(tmp_path, changes, error, words):
  calls = resolve(HERE).CALLS
  calls.clear()
  with pytest.raises(error, match=words):
    annotate(tmp_path / "annotate", **changes)
  assert not calls
  annotate(tmp_path / "annotate")
  assert calls


def test_what_a_stage_wrote_is_a_teacher_for_another(tmp_path):
  first = tmp_path / "first"
  annotate(first, teacher="research.teachers.solver", count=40)
  said = annotate(
    tmp_path / "annotate",
    {"first": {"folder": str(first)}},
    teacher="research.teachers.recorded",
    args={"path": "{first}/traces.jsonl"},
    count=40,
  )
  for name in ("traces", "answers"):
    own = tmp_path / "annotate" / f"{name}.jsonl"
    assert own.read_bytes() == (first / f"{name}.jsonl").read_bytes()
  assert said["teacher"] == [{"usable": 40, "faults": {}}]


def test_a_broken_file_is_told_in_gates_json(tmp_path):
  annotate(tmp_path / "first", teacher="research.teachers.solver")
  path = tmp_path / "first" / "traces.jsonl"
  path.write_bytes(b"\xff\n{\n" + path.read_bytes())
  args = {"path": str(path)}
  annotate(
    tmp_path / "annotate", teacher="research.teachers.recorded", args=args
  )
  told = json.loads((tmp_path / "annotate" / "gates.json").read_text())
  faults = told["teacher"][0]["faults"]
  assert faults["not UTF-8"] == {"count": 1, "lines": "1"}
  assert faults["not a line of JSON"]["lines"] == "2"


def held_out(tmp_path, *sets):
  gate = {"name": "research.annotation.decontaminate"}
  return annotate(
    tmp_path / "annotate",
    teacher="research.teachers.solver",
    count=200,
    gates=[VERIFY, gate],
    held_out=sets,
  )["gates"][-1]


def test_decontamination_against_the_sets_of_a_config(tmp_path):
  """Its own problems are found in other splits' files and nowhere else."""
  test = {"problems": tiny.problems("test"), "count": 50}
  ood = {"problems": tiny.problems("ood"), "count": 10}
  clean = held_out(tmp_path, test, ood)
  assert clean["dropped"] == {}
  assert clean["held_out"]["chain/test"] == {"items": 50, "met": 0}
  row = lines(tmp_path / "annotate" / "traces.jsonl")[17]
  path = tmp_path / "planted.jsonl"
  path.write_text(json.dumps({"question": f" {row['prompt']}\n"}) + "\n")
  found = held_out(tmp_path, test, {"path": str(path), "field": "question"})
  assert found["held_out"][str(path)] == {"items": 1, "met": 1}
  lost = lines(tmp_path / "annotate" / "dropped.jsonl")
  assert {r["key"] for r in lost} == {row["key"]}
  assert all(r["detail"].startswith(f"{path}[0]: ") for r in lost)


def test_two_sets_of_one_split_have_two_names(tmp_path):
  test = {"problems": tiny.problems("test"), "count": 5}
  names = held_out(tmp_path, test, test)["held_out"]
  assert list(names) == ["chain/test", "chain/test #1"]


def endpoint(url, name):
  how = {"url": url, "model": "reverser", "max_tokens": 64, "concurrency": 2}
  return how | {"first_wait": 0.01, "ledger": f"{{annotate}}/{name}.jsonl"}


def test_an_endpoint_and_its_critic(tmp_path):
  """Wrong at first, revised, and on another day nothing is asked again."""
  log = tmp_path / "log"
  script = [["A wrong solution", "#### 7"], ["Check it", "It is wrong."]]
  with served(log, "..5.", script) as url:
    changes = {
      "teacher": "research.teachers.endpoint",
      "args": endpoint(url, "ledger"),
      "critic": {
        "name": "research.teachers.endpoint",
        "args": endpoint(url, "critic"),
      },
      "gates": [
        {"name": "research.annotation.critique", "args": {"rounds": 1}}
      ],
      "count": 20,
    }
    said = annotate(tmp_path / "annotate", **changes)
    asked = log.read_text()
    again = annotate(tmp_path / "annotate", **changes)
    assert log.read_text() == asked
  assert again | {"critic": []} == said | {"critic": []}
  assert again["critic"][-1] == said["critic"][-1]
  kept = lines(tmp_path / "annotate" / "traces.jsonl")
  assert {row["completion"] for row in kept} == {"#### 7"}
  correct = said["gates"][1]["correct"]
  assert correct["at first"] == correct["round 1"] == 0
  assert correct["revealed"] == len(kept) == said["kept"] > 0
  assert said["teacher"][0]["answered"] == 20
  calls = [account["answered"] for account in said["critic"]]
  assert calls == [20, 40, 60]  # to check, to revise, and the answer revealed
  assert said["teacher"][0]["completion_tokens"] > 0
  answers = lines(tmp_path / "annotate" / "answers.jsonl")
  assert {row["completion"] for row in answers} == {"#### 7"}
  files = {path.stem for path in (tmp_path / "annotate").glob("*.jsonl")}
  assert files == {"answers", "critic", "dropped", "ledger", "traces"}


def get_config():
  return ConfigDict(config())


def test_the_report_has_the_counts(here, tmp_path):
  assert not here(tmp_path / "run", config=__file__)
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert summary["annotate_0_written"] == 11
  assert 0 < summary["annotate_1_verify"] < 11
  report = (tmp_path / "run" / "report.html").read_text()
  assert "annotate 1 verify" in report
