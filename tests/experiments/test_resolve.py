"""Dotted addresses: what is there, what is not, and what is broken."""

import json

import pytest

from experiments import resolve as room
from experiments.resolve import resolve


def test_modules_and_what_they_hold():
  assert resolve("json") is json
  assert resolve("json.decoder.JSONDecoder") is json.JSONDecoder
  assert resolve("experiments.resolve.resolve") is resolve
  assert resolve("experiments.resolve") is room


@pytest.mark.parametrize(
  ("address", "part"),
  [
    ("research.losses.hinge", "research.losses has no hinge"),
    ("research.lossez.hinge", "research has no lossez"),
    ("nowhere", "nowhere"),
    ("nowhere.at.all", "nowhere"),
    ("json.JSONDecoder.more", "JSONDecoder has no more"),
    ("", "no dotted address"),
    ("json.", "no dotted address"),
    (".json", "no dotted address"),
    ("json..decoder", "no dotted address"),
  ],
)
def test_nothing_is_there(address, part):
  with pytest.raises(ValueError, match="nothing is at") as caught:
    resolve(address)
  assert part in str(caught.value)


def test_a_module_that_lacks_another_says_so(tmp_path, monkeypatch):
  """An error of what is imported is not "nothing is there"."""
  (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
  monkeypatch.syspath_prepend(tmp_path)
  for address in ("needy", "needy.more"):
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
      resolve(address)
