"""A config becomes dataclasses: types, defaults, and errors by name."""

import dataclasses
from typing import Any, Literal

import pytest

from experiments import settings
from experiments.settings import Address, Stage, build
from research.models import presets
from research.models.config import Model, Rope


@dataclasses.dataclass(frozen=True)
class Leaf:
  count: int
  rate: float = 0.5


@dataclasses.dataclass(frozen=True)
class Tree:
  name: str
  leaf: Leaf
  leaves: tuple[Leaf, ...] = ()
  kind: Literal["oak", "fir", 3] = "oak"
  maybe: int | None = None
  old: bool = False
  args: dict[str, Any] = dataclasses.field(default_factory=dict)
  weights: dict[str, float] = dataclasses.field(default_factory=dict)
  loss: Address | None = None
  after: Stage | None = None


SMALL = {"name": "a", "leaf": {"count": 1}}


def test_defaults_are_the_dataclass_own():
  assert build(Tree, SMALL) == Tree("a", Leaf(1, 0.5))


def test_everything_at_once():
  given = {
    "name": "b",
    "leaf": Leaf(2),
    "leaves": [{"count": 3, "rate": 1}, {"count": 4}],
    "kind": 3,
    "maybe": 5,
    "old": True,
    "args": {"free": [1, {"x": None}]},
    "weights": {"x": 1},
    "loss": "research.losses.supervised",
    "after": "first",
  }
  found = build(Tree, given)
  assert found.leaf == Leaf(2)
  assert found.leaves == (Leaf(3, 1.0), Leaf(4, 0.5))
  assert type(found.leaves[0].rate) is type(found.weights["x"]) is float
  assert (found.kind, found.maybe, found.old) == (3, 5, True)
  assert found.args == {"free": [1, {"x": None}]}
  assert isinstance(found.after, Stage) and found.after == "first"
  assert found.loss == "research.losses.supervised"


WRONG = {
  "unknown": ({"nmae": 1}, "nmae is unknown; plan.tree has after, args"),
  "unknown below": ({"leaf": {"cuont": 1}}, "leaf.cuont is unknown"),
  "missing below": ({"leaf": {}}, "leaf.count is missing"),
  "no number": ({"leaf": {"count": "1"}}, "leaf.count is '1', a str; int is"),
  "a fraction": ({"leaf": {"count": 1.0}}, "leaf.count is 1.0, a float; int"),
  "truth": ({"leaf": {"count": True}}, "leaf.count is True, a bool; int is"),
  "a number": ({"old": 1}, "old is 1, a int; bool is wanted"),
  "truth as a rate": ({"leaf": {"count": 1, "rate": True}}, "leaf.rate is"),
  "text as a rate": ({"leaf": {"count": 1, "rate": "1"}}, "leaf.rate is"),
  "no text": ({"name": 3}, "name is 3, a int; str is wanted"),
  "nothing": ({"name": None}, "name is None, a NoneType; str is wanted"),
  "a number for a part": ({"leaf": 3}, "leaf is 3, a int; Leaf is wanted"),
  "no list": ({"leaves": {"count": 1}}, "leaves is .* a dict; tuple"),
  "text for a list": ({"leaves": "ab"}, "leaves is 'ab', a str; tuple"),
  "in a list": ({"leaves": [{"count": 1}, {"count": "2"}]}, r"leaves\[1\].co"),
  "no choice": ({"kind": "elm"}, "kind is 'elm', .*'oak', 'fir', 3"),
  "a choice's type": ({"kind": 3.0}, "kind is 3.0"),
  "no option": ({"maybe": "x"}, "maybe is 'x', a str; int is wanted"),
  "no table": ({"args": [1]}, "args is .* a list; dict"),
  "in a table": ({"weights": {"x": "1"}}, "weights.x is '1', a str; float"),
  "no address": ({"loss": "json.hinge"}, "loss: nothing is at 'json.hinge'"),
  "a number for one": ({"loss": 3}, "loss is 3, a int; str is wanted"),
}


@pytest.mark.parametrize("changes, text", WRONG.values(), ids=WRONG)
def test_an_error_names_its_field(changes, text):
  with pytest.raises(ValueError, match=rf"config\.plan\.tree\.{text}"):
    build(Tree, SMALL | changes, "plan.tree")


def test_an_error_at_the_root():
  with pytest.raises(ValueError, match=r"config\.name is missing"):
    build(Tree, {"leaf": {"count": 1}})
  with pytest.raises(ValueError, match=r"config\.more is unknown; the config"):
    build(Tree, SMALL | {"more": 1})


def test_models_are_presets_with_changes():
  assert build(Model, {"preset": "tiny"}, "model") == presets.make("tiny")
  rope = {"base": 500, "scaling": "linear", "factor": 2}
  found = build(Model, {"preset": "tiny", "width": 64, "rope": rope}, "model")
  assert found.width == 64
  assert found.rope == Rope(500.0, "linear", 2.0)


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"width": "64"}, r"config\.model\.width is '64'"),
    ({"widht": 64}, "widht.*the switches are"),
    ({"preset": "huge"}, "no preset 'huge'; there are"),
    ({"preset": 3}, r"config\.model\.preset is 3"),
    ({"dtype": "float16"}, r"config\.model\.dtype is 'float16'"),
    ({"rope": {"bas": 1}}, r"config\.model\.rope\.bas is unknown"),
  ],
)
def test_a_model_is_checked(changes, text):
  with pytest.raises(ValueError, match=text):
    build(Model, {"preset": "tiny"} | changes, "model")


def test_a_model_has_a_preset():
  with pytest.raises(ValueError, match=r"config\.model\.preset is missing"):
    build(Model, {"width": 64}, "model")
  with pytest.raises(ValueError, match=r"config\.model is 'tiny', a str"):
    build(Model, "tiny", "model")


def test_describe_counts():
  model = presets.make("tiny")
  run = settings.Run(0, "bytes", model, settings.Mesh())
  assert "3 layers of width 128, 2x2 heads of 32" in settings.describe(run)
  assert settings.describe(run).startswith("0.62 M parameters: ")
