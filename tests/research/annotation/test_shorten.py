import itertools

import pytest

from research.annotation import shorten
from research.tasks import multiplication
from tests.research.annotation.making import about, reasons, texts, trace

TEXT = "7:4*7+0=82>832\n2:4*2+0=80>086\n8+0+0=80>819\n#### 918"
STEPS = r"(?<=:)[^>\n]*(?=>)|^[^:>\n]*(?=>)"


def chain(text=TEXT, answer="918"):
  return trace(text, prompt="34*27", answer=answer)


def shortened(text=TEXT, **args):
  return shorten.sift([chain(text)], about(multiplication), **args)


@pytest.mark.parametrize("lines", [1, 2, 3, 9])
def test_the_first_lines_go_and_the_answer_stays(lines):
  left = TEXT.split("\n")[:-1][lines:]
  assert texts(shortened(lines=lines)) == ["\n".join([*left, "#### 918"])]


def test_the_detail_of_every_line_goes():
  assert texts(shortened(detail=STEPS)) == ["7:>832\n2:>086\n>819\n#### 918"]


def test_all_of_a_tasks_chains_can_lose_their_detail():
  problems = itertools.islice(multiplication.problems("train", 0), 50)
  traces = [
    trace(multiplication.trace(p, 0), prompt=p.prompt, answer=p.answer)
    for p in problems
  ]
  found = shorten.sift(traces, about(multiplication), detail=STEPS)
  assert len(found.kept) == 50 and "=" not in "".join(texts(found))
  sizes = found.figures
  assert sizes["characters_after"] < sizes["characters_before"] / 2


def test_what_is_wrong_afterwards_is_dropped():
  assert reasons(shortened(detail=r"918")) == ["unparsed"]
  assert reasons(shortened("#### 9", lines=1)) == ["wrong"]


@pytest.mark.parametrize(
  "args", [{}, {"lines": -1}, {"detail": "("}, {"lines": 0, "detail": ""}]
)
def test_nothing_to_remove(args):
  with pytest.raises(ValueError, match="shorten:"):
    shortened(**args)
