"""Seeds side by side, and the notes below them kept."""

from experiments import seed_table


def test_the_table():
  figure = lambda x: {"mean": x, "low": x - 0.1, "high": x + 0.1, "n": 9}
  runs = [{"a": figure(0.2), "b": 1}, {"a": figure(0.4), "b": 3}]
  lines = seed_table.table(runs, ["0", "7"]).splitlines()
  assert lines[0] == "| figure | seed 0 | seed 7 | mean ± sd of seeds |"
  assert lines[2] == (
    "| `a` | 0.200 [0.100, 0.300] | 0.400 [0.300, 0.500] | 0.300 ± 0.141 |"
  )
  assert lines[3] == "| `b` | 1 | 3 | 2.000 ± 1.414 |"


def test_notes_below_the_table_stay(tmp_path):
  out = tmp_path / "x.md"
  assert seed_table.with_notes("new\n", out) == "new\n"
  out.write_text("old\n\n## Refuted\n\nmuch\n")
  assert seed_table.with_notes("new\n", out) == "new\n\n## Refuted\n\nmuch\n"
  out.write_text("old\n")
  assert seed_table.with_notes("new\n", out) == "new\n"
