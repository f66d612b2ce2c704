import itertools
import os
import pathlib

import pytest

from research.tasks import gsm8k

ROW = {
  "question": "Ann has 1,000 figs and sells half at $2. What has she made?",
  "answer": (
    "She sells 1000/2 = <<1000/2=500>>500 figs.\n"
    "She made 500*2 = $<<500*2=1000>>1,000.\n#### 1,000"
  ),
}
DATA = pathlib.Path(
  os.environ.get("PITH_DATA", pathlib.Path(__file__).parents[4] / "shared/data")
)
needs_data = pytest.mark.skipif(
  not (DATA / "gsm8k/test.jsonl").exists(),
  reason="GSM8K's files are not here; PITH_DATA says where they are",
)


def test_the_trace_is_the_worked_answer_without_marks():
  problem = gsm8k.problem_of(ROW)
  assert gsm8k.trace(problem, 0) == (
    "She sells 1000/2 = 500 figs.\nShe made 500*2 = $1,000.\n#### 1000"
  )
  assert problem.meta["difficulty"] == 2
  marked = gsm8k.trace(gsm8k.problem_of(ROW, marks=True), 0)
  assert marked.count("<<") == 2 and marked.endswith("\n#### 1000")


@pytest.mark.parametrize(
  "answer", ["1000", "1,000", "$1,000.00", "1000.", "1000.0", "1000 "]
)
def test_numbers_are_compared_by_value(answer):
  problem = gsm8k.problem_of(ROW)
  assert gsm8k.reward(problem, f"#### {answer}").kind == "correct"


@pytest.mark.parametrize(
  ("text", "kind"),
  [
    ("#### 1001", "wrong"),
    ("#### 11000", "wrong"),
    ("#### 1000 or 1001", "unparsed"),
    ("#### 10**3", "unparsed"),
    ("#### 1e3", "unparsed"),
    ("#### 1000\n####", "unparsed"),
    ("#### 1000\n#### 7", "wrong"),
    ("The answer is 1000", "unparsed"),
    ("so #### 1000", "unparsed"),
    ("##### 1000", "unparsed"),
  ],
)
def test_what_strict_grading_does_not_take(text, kind):
  assert gsm8k.reward(gsm8k.problem_of(ROW), text).kind == kind


def test_an_answer_without_a_number_is_named():
  with pytest.raises(ValueError, match=r"'Ann has .*does not end in a line"):
    gsm8k.problem_of({**ROW, "answer": "#### some"})


def test_layout_makes_no_other_question():
  assert gsm8k.key_of("How many\n figs?") == gsm8k.key_of("how many figs ?")
  assert gsm8k.key_of("How many figs?") != gsm8k.key_of("How many pigs?")


def test_an_answer_without_workings_has_no_trace():
  problem = gsm8k.problem_of({**ROW, "answer": "#### 5"})
  with pytest.raises(ValueError, match="no worked answer"):
    gsm8k.trace(problem, 0)


def test_missing_data_says_where_it_was_looked_for(tmp_path):
  with pytest.raises(FileNotFoundError, match="gsm8k"):
    gsm8k.problems("test", 0, tmp_path, tmp_path)


@needs_data
def test_every_gold_of_the_official_files_grades_itself(tmp_path):
  sizes = {}
  for split in gsm8k.SPLITS:
    problems = list(gsm8k.problems(split, 0, DATA, tmp_path))
    sizes[split] = len(problems)
    for problem in itertools.islice(problems, 100):
      text = gsm8k.answer_text(problem)
      assert gsm8k.reward(problem, text).kind == "correct"
      other = f"#### {float(problem.answer) + 1}"
      assert gsm8k.reward(problem, other).kind == "wrong"
      if split != "ood":
        worked = gsm8k.trace(problem, 0)
        assert "<<" not in worked
        assert gsm8k.lenient(problem, worked).kind == "correct"
  assert sizes["test"] == 1319 and 7000 < sizes["train"] <= 7473
