"""Seeds side by side, and the notes below them kept."""

import pytest

from experiments import seed_plot, seed_table


def test_the_table():
  figure = lambda x: {"mean": x, "low": x - 0.1, "high": x + 0.1, "n": 9}
  runs = [{"a": figure(0.2), "b": 1}, {"a": figure(0.4), "b": 3}]
  lines = seed_table.table(runs, ["0", "7"]).splitlines()
  assert lines[0] == "| figure | seed 0 | seed 7 | mean over seeds |"
  assert lines[2].startswith("| `a` | 0.200 [0.100, 0.300] | 0.400 [0.300, ")
  assert lines[2].endswith(" | 0.300 [-0.971, 1.571] |")
  assert lines[3] == "| `b` | 1 | 3 | 2.000 [-10.706, 14.706] |"


def test_a_figure_that_a_run_does_not_have():
  """In any of them, the first too: no mean, and no other number's place."""
  lines = seed_table.table([{"b": 1}, {"a": 2, "b": 3}], ["0", "7"])
  rows = lines.splitlines()[2:]
  assert rows[0].startswith("| `b` | 1 | 3 | 2.000 ")
  assert rows[1] == "| `a` |  | 2 |  |"


def test_the_interval_over_seeds_is_students():
  """Of 2, 3 and 4 by hand: 3 ± 4.303 / sqrt(3)."""
  low, high = seed_table.interval([2.0, 3.0, 4.0])
  assert (low, high) == pytest.approx((3 - 2.4843, 3 + 2.4843), abs=1e-3)


def test_the_picture(tmp_path):
  runs = [
    {"a/pass@1": {"mean": x, "low": 0, "high": 1}, "b": x} for x in (0, 1)
  ]
  seed_plot.save(runs, ["0", "1"], "name", tmp_path / "x.png")
  assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_notes_below_the_table_stay(tmp_path):
  out = tmp_path / "x.md"
  assert seed_table.with_notes("new\n", out) == "new\n"
  out.write_text("old\n\n## Refuted\n\nmuch\n")
  assert seed_table.with_notes("new\n", out) == "new\n\n## Refuted\n\nmuch\n"
  out.write_text("old\n")
  assert seed_table.with_notes("new\n", out) == "new\n"
