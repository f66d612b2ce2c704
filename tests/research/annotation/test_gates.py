"""What all gates promise, and the run of them that holds them to it."""

import dataclasses
import importlib
import pkgutil

import pytest

import research.annotation
from research.annotation import gates
from research.annotation.gates import Sifted
from research.teachers.answers import Answer
from tests.research.annotation.making import about, reasons, texts, trace

GATES = {
  name: module
  for _, name, _ in pkgutil.iter_modules(research.annotation.__path__)
  for module in [importlib.import_module(f"research.annotation.{name}")]
  if hasattr(module, "sift")
}
ARGS = {
  "rewrite": {"shortest": 1, "longest": 12},
  "select": {"count": 3},
  "shorten": {"lines": 1},
}


def reply(talks):
  for _ in talks:
    yield Answer("b1+1=2\n#### 2", "stop", 5, 9)
  return {}


def everything():
  """Traces of all sorts, right and wrong."""
  said = ["a1+1=2\n#### 2", "#### 3", "<<1+1=3>>\n#### 2", "\u043c\u0438\u0440"]
  prompts = ["1a+1", "1a+1", "9 plus the other words of a long question here"]
  return [
    trace(text, prompt, sample=i, finish=finish)
    for prompt in prompts
    for i, text in enumerate(said)
    for finish in ("stop", "length")
  ]


@pytest.mark.parametrize("name", sorted(GATES))
def test_each_trace_comes_out_once_and_the_same_way(name):
  assert len(GATES) == 10
  traces = everything()
  before = [dataclasses.replace(t) for t in traces]
  known = about(held_out={"x": ["of a long question"]}, reply=reply)
  gate = lambda found: GATES[name].sift(found, known, **ARGS.get(name, {}))
  kept, dropped, [_, count] = gates.run(traces, [(name, gate)])
  assert len(kept) + len(dropped) == len(traces) == count["in"]
  assert count["out"] == len(kept)
  assert sum(count["dropped"].values()) == len(dropped)
  places = [
    next(i for i, t in enumerate(traces) if t.problem is k.problem)
    for k in kept
  ]
  assert places == sorted(places)
  assert gates.run(traces, [(name, gate)])[0] == kept  # a pure function
  assert traces == before
  assert gate([]).kept == gate([]).dropped == []


def test_what_is_not_written_comes_to_no_gate():
  good, bad = trace("a"), [trace(x) for x in (None, " \n", "\ud800")]
  bad[0] = dataclasses.replace(bad[0], error="no luck")
  seen = []

  def gate(traces):
    seen.extend(traces)
    return Sifted(list(traces), [])

  kept, dropped, counts = gates.run([bad[0], good, *bad[1:]], [("g", gate)])
  assert kept == seen == [good]
  assert [d.reason.name for d in dropped] == ["error", "blank", "not Unicode"]
  assert dropped[0].reason.detail == "no luck" and dropped[0].gate == "written"
  assert counts[0]["dropped"] == {"error": 1, "blank": 1, "not Unicode": 1}
  assert counts[1] == {"gate": "g", "in": 1, "out": 1, "dropped": {}}


@pytest.mark.parametrize(
  "gate",
  [
    lambda traces: Sifted(list(traces)[1:], []),
    lambda traces: Sifted([*traces, traces[0]], []),
    lambda traces: Sifted(list(traces), [(traces[0], gates.Reason("x"))]),
    lambda traces: Sifted([trace("a") for _ in traces], []),
  ],
  ids=["loses", "doubles", "keeps and drops", "makes others"],
)
def test_a_gate_that_does_not_account_for_all_is_named(gate):
  with pytest.raises(ValueError, match="the gate leaky was given 2 traces"):
    gates.run([trace("a"), trace("b")], [("leaky", gate)])


def test_asking_without_a_teacher_names_the_remedy():
  for name in ("critique", "rewrite"):
    with pytest.raises(ValueError, match="critic"):
      GATES[name].sift([], about(), **ARGS.get(name, {}))


def test_helpers_of_this_folder_see_through_a_sifted():
  found = gates.split([trace("a"), trace("b")], lambda t: None)
  assert texts(found) == ["a", "b"] and reasons(found) == []
