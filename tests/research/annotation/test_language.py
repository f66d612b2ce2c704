from research.annotation import language
from tests.research.annotation.making import about, reasons, texts, trace

ENGLISH = "The answer is 42."
RUSSIAN = "\u043e\u0442\u0432\u0435\u0442 42"
CHINESE = "\u7b54\u6848\u662f 42"
MATH = "\u2200x \u2208 \u211d: \U0001d431\u00b2 \u2265 0"  # R and bold x


def kept(*found, **args):
  return texts(language.sift([trace(x) for x in found], about(), **args))


def test_scripts():
  every = (ENGLISH, RUSSIAN, CHINESE)
  assert kept(*every) == [ENGLISH]
  assert kept(*every, scripts=["CYRILLIC"]) == [RUSSIAN]
  assert kept(*every, scripts=["CJK", "LATIN"]) == [ENGLISH, CHINESE]


def test_signs_and_digits_are_no_letters_and_mathematical_ones_are_latin():
  assert kept("1 + 1 = 2", MATH) == ["1 + 1 = 2", MATH]


def test_the_share():
  mixed = "a" * 19 + "\u043e"
  assert kept(mixed) == [mixed]
  assert kept("a" + mixed[2:]) == []
  assert kept(mixed, share=0.96) == []
  found = language.sift([trace(RUSSIAN)], about())
  assert reasons(found) == ["another script"]
  assert found.dropped[0][1].detail == "0 of 5 letters"


def test_a_script_is_no_language():
  """What it cannot do, so that nobody counts on it."""
  assert kept("Die Antwort ist 42.") == ["Die Antwort ist 42."]
