"""The share of words in one script, counted by hand."""

import pytest

from research.rewards import language


@pytest.mark.parametrize(
  "text, wanted",
  [
    ("", 1.0),
    ("12 * 3 = 36", 1.0),
    ("two and two", 1.0),
    ("naïve Köln", 1.0),
    ("two и two", 2 / 3),
    ("и", 0.0),
    ("twо", 0.0),  # its last letter is Cyrillic
    ("we 因此 go", 2 / 3),
    ("ｔｗｏ", 1.0),  # full-width letters are Latin ones
  ],
)
def test_the_share(text, wanted):
  assert language.bonus(text) == pytest.approx(wanted)


def test_another_script():
  assert language.bonus("два two", scripts=("CYRILLIC",)) == 0.5
