"""Where other stages' files lie."""

import pytest

from experiments import files

INPUTS = {"before": {"folder": "runs/1/before"}}


@pytest.mark.parametrize(
  "path", ["{later}/a.jsonl", "{later}", "{0}/x", "{before.x}/y"]
)
def test_a_stage_that_has_not_run(path):
  with pytest.raises(ValueError, match="names no stage that has run"):
    files.located(path, INPUTS)


@pytest.mark.parametrize(
  "path, found",
  [
    ("{before}/a.jsonl", "runs/1/before/a.jsonl"),
    ("{before}", "runs/1/before"),
    ("plain/a.jsonl", "plain/a.jsonl"),
    ("a {later}/b", "a {later}/b"),  # text of a prompt, not a path
    ('{"later": 1}', '{"later": 1}'),
  ],
)
def test_only_the_head_of_a_path_names_a_stage(path, found):
  assert files.located(path, INPUTS) == found
  told = files.located_in({"a": [path], "n": 3}, INPUTS)
  assert told == {"a": [found], "n": 3}


def test_lines_are_read_as_they_were_written(tmp_path):
  rows = [{"a": "é\n"}, {"b": 1}]
  files.write_lines(tmp_path / "x.jsonl", rows)
  assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 2
