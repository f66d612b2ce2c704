"""Every module of research/tasks keeps the contract, from when it exists."""

import dataclasses
import gzip
import importlib
import itertools
import json
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research import tasks
from research.evaluation.pass_at_k import majorities
from research.grading import sandbox
from research.types import Problem
from tests import archives

NAMES = sorted(m.name for m in pkgutil.iter_modules(tasks.__path__))
SAMPLES = 1000
# SVAMP, gsm8k's ood split, has answers without workings, as MATH's train file.
UNWORKED = {("gsm8k", "ood"), ("math", "train")}
# To learn from these would make every score with them worthless.
ONLY_TESTS = {"humaneval"}
# Rewards run the answer, and nothing is run that cannot be isolated.
PROGRAMS = {"humaneval", "mbpp"}


def _module(name):
  return importlib.import_module(f"research.tasks.{name}")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
  """What a task needs beside its defaults; files are made up here."""
  root = tmp_path_factory.mktemp("data")
  for part in ("train", "test"):
    rows = [
      {
        "question": f"Ann has {i} figs and {part} buys 3. How many?",
        "answer": f"{i}+3 = <<{i}+3={i + 3}>>{i + 3} figs.\n#### {i + 3:,}",
      }
      for i in range(990, 1020)
    ]
    # A test question that leaked into the training file.
    leaked = {"question": "Leaked?", "answer": "3+4 = 7\n#### 7"}
    _write(root / "gsm8k" / f"{part}.jsonl", [*rows, leaked])
  svamp = {"Body": "Bo had 9 figs and ate 4.", "Question": "How many now?"}
  row = {**svamp, "Answer": 5.0, "Type": "", "ID": "a", "Equation": ""}
  _write(root / "svamp" / "svamp_test.jsonl", [row])
  _articles(root)
  _yes_or_no(root)
  _programs(root)
  _formulas(root)
  archives.made_up(root)
  cache = tmp_path_factory.mktemp("cache")
  harder = {"min_terms": 7, "max_terms": 9}
  return {
    "gsm8k": {"data_dir": str(root), "cache_dir": str(cache)},
    "pubmedqa": {"data_dir": str(root), "cache_dir": str(cache)},
    "hops": {"data_dir": str(root)},
    "humaneval": {"data_dir": str(root), "cache_dir": str(cache)},
    "math": {"data_dir": str(root), "cache_dir": str(cache)},
    "mbpp": {"data_dir": str(root), "cache_dir": str(cache)},
    "strategy_qa": {"data_dir": str(root), "cache_dir": str(cache)},
    "reasoning_gym": {"family": "chain_sum", "harder": harder},
  }


def _articles(root):
  """Writes articles in PubMedQA's form."""
  articles = {
    f"{i}": {
      "QUESTION": f"Does {i} mg help?",
      "CONTEXTS": [f"We gave {i} mg to some.", "They felt better."],
      "LONG_ANSWER": "It may help.",
      "final_decision": ("yes", "no", "maybe")[i % 3],
    }
    for i in range(60)
  }
  (root / "pubmedqa").mkdir()
  (root / "pubmedqa" / "pqal_train.json").write_text(json.dumps(articles))


def _yes_or_no(root):
  """Writes questions in StrategyQA's form."""
  rows = [
    {
      "question": f"Is {i} more than {500 - i}?",
      "answer": "Yes" if i > 250 else "No",
      "rationale": f"One is {i}. The other is {500 - i}.",
    }
    for i in range(500)
  ]
  (root / "cot_tasks").mkdir()
  (root / "cot_tasks" / "strategy_qa.json").write_text(json.dumps(rows))


def _programs(root):
  """Writes functions to complete in HumanEval's form, and in MBPP's."""
  head = "import math\n\n\ndef add_{0}(n: int) -> int:\n"
  test = "def check(candidate):\n  assert candidate(7) == {0} + 7\n"
  rows = [
    {
      "task_id": f"HumanEval/{i}",
      "prompt": f'{head.format(i)}  """Adds {i}."""\n',
      "entry_point": f"add_{i}",
      "canonical_solution": f"  return n + {i}\n",
      "test": test.format(i),
    }
    for i in range(5)
  ]
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (root / "humaneval").mkdir()
  path = root / "humaneval" / "HumanEval.jsonl.gz"
  path.write_bytes(gzip.compress(lines.encode()))
  rows = [
    {
      "text": f"Write a function to multiply by {i}.",
      "code": f"def times_{i}(n):\r\n  return n * {i}",
      "task_id": i,
      "test_setup_code": "",
      "test_list": [f"assert times_{i}(2) == {2 * i}"],
      "challenge_test_list": [],
    }
    for i in (1, *range(11, 16), *range(601, 606))
  ]
  _write(root / "mbpp" / "mbpp.jsonl", rows)


def _formulas(root):
  """Writes problems in MATH's form; one of test stands in train as well."""
  answers = ("\\frac{%d}{7} + 2", "(%d, 2)", "2x^2 + %d", "%d\\pi + 3")
  row = lambda i: {
    "problem": f"What is $x + {i}$?",
    "answer": answers[i % 4] % i,
    "level": f"Level {1 + i % 5}",
    "subject": "Algebra",
  }
  solved = lambda i: {**row(i), "level": 1 + i % 5, "solution": f"It is {i}."}
  dull = [{**row(99), "answer": ""}, {**row(98), "level": "Level ?"}]
  train = [*map(row, range(10, 51)), *dull]
  _write(root / "math" / "train.jsonl", train)
  _write(root / "math" / "math500.jsonl", map(solved, range(50, 70)))


def _write(path, rows):
  path.parent.mkdir(exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module", params=NAMES)
def supply(request, arguments):
  """A task's module, and `take(split, seed, n)` of its problems."""
  task = _module(request.param)
  if request.param in PROGRAMS:
    try:
      sandbox.check()
    except sandbox.Unavailable as error:
      pytest.skip(str(error))
  args = arguments.get(request.param, {})

  def take(split, seed=0, n=SAMPLES):
    return list(itertools.islice(task.problems(split, seed, **args), n))

  return task, take


def _home(task):
  """The split that surely has problems."""
  return "test" if task.__name__.split(".")[-1] in ONLY_TESTS else "train"


def test_the_folder_is_not_empty():
  assert {"chain", "countdown", "gsm8k", "multiplication"} <= set(NAMES)


def test_problems_follow_from_the_seed_alone(supply):
  task, take = supply
  split = _home(task)
  assert take(split, 3, 20) == take(split, 3, 20)
  assert take(split, 3, 20) != take(split, 4, 20)


def test_problems_are_plain_data_with_a_key_and_a_difficulty(supply):
  task, take = supply
  assert task.SPLITS == ("train", "test", "ood")
  for split in task.SPLITS:
    for problem in take(split, n=5):
      assert json.loads(json.dumps(problem.meta)) == problem.meta
      assert isinstance(problem.meta["key"], str)
      assert isinstance(problem.meta["difficulty"], int | float)
      assert problem.prompt and problem.answer


def test_splits_share_no_key_whatever_the_seed(supply):
  task, take = supply
  keys = {
    split: {p.meta["key"] for p in take(split, n=300)} for split in task.SPLITS
  }
  keys["train"] = {
    p.meta["key"] for seed in (0, 1) for p in take("train", seed)
  }
  for left, right in itertools.combinations(task.SPLITS, 2):
    assert not keys[left] & keys[right], (left, right)


def test_test_and_ood_never_ask_twice(supply):
  _, take = supply
  for split in ("test", "ood"):
    keys = [p.meta["key"] for p in take(split, n=300)]
    assert len(set(keys)) == len(keys)


def test_traces_and_answers_are_rewarded(supply):
  task, take = supply
  for split in task.SPLITS:
    worked = (task.__name__.split(".")[-1], split) not in UNWORKED
    for seed, problem in enumerate(take(split, n=50)):
      texts = [task.answer_text(problem)]
      if hasattr(task, "trace") and worked:
        texts.append(task.trace(problem, seed))
        assert texts[-1] == task.trace(problem, seed)
      for text in texts:
        assert task.reward(problem, text).kind == "correct", text
        assert task.reward(problem, text).value == 1.0
        assert task.lenient(problem, text).kind == "correct", text


def test_right_answers_win_every_vote(supply):
  """What is counted as a vote is what is graded: maj@k of the right is 1."""
  task, take = supply
  samples = []
  for problem in take("test", n=3):
    text = task.answer_text(problem)
    assert task.extracted(text) is not None
    about = {"problem": problem.meta["key"], "answer": task.extracted(text)}
    about["verdict"] = task.reward(problem, text).kind
    samples += [about | {"sample": i} for i in range(4)]
  assert set(majorities(samples, 4).values()) == {1.0}
  assert task.extracted("nothing to read") is None


def test_a_perturbed_answer_is_not_rewarded(supply):
  task, take = supply
  for problem in take(_home(task), n=50):
    for change in ("{}1", "{}+1", "1{}", "{0} {0}", "not {}"):
      answer = change.format(problem.answer)
      text = task.answer_text(dataclasses.replace(problem, answer=answer))
      verdict = task.reward(problem, text)
      assert verdict.kind != "correct" and verdict.value == 0.0, text


def test_the_answer_without_the_format_counts_only_when_lenient(supply):
  task, take = supply
  for problem in take("test", n=20):
    assert task.reward(problem, problem.answer).kind == "unparsed"
    assert task.lenient(problem, problem.answer).kind == "correct"


def test_an_answer_inside_unfinished_thinking_is_none(supply):
  task, take = supply
  problem = take("test", n=1)[0]
  text = task.answer_text(problem)
  assert task.reward(problem, f"<think>{text}").kind == "unparsed"
  assert task.reward(problem, f"<think>5</think>{text}").kind == "correct"


COMMENTS = (
  "<!-- {} -->",
  "<!--\n{}\n-->",
  "<!--\n{}\n-->\nThe answer is 71390174.5",
  "\\begin{{comment}}\n{}\n\\end{{comment}}",
  "\\iffalse\n{}\n\\fi",
  "```python\n# {}\n```",
)


@pytest.mark.parametrize("comment", COMMENTS)
def test_an_answer_in_a_comment_earns_nothing(supply, comment):
  task, take = supply
  if task.__name__.split(".")[-1] in PROGRAMS:
    pytest.skip("what stands between the fences of a program is run")
  for problem in take(_home(task), n=5):
    text = task.answer_text(problem).replace("<answer>", "# <answer>")
    hidden = comment.format(text)
    assert task.reward(problem, hidden).value == 0.0, hidden


def test_the_prompt_said_again_earns_nothing(supply):
  """Its own example, too, where it has one."""
  task, take = supply
  for problem in take(_home(task), n=50):
    assert task.reward(problem, problem.prompt).value == 0.0
    text = f"{problem.prompt}\n{problem.prompt}"
    assert task.reward(problem, text).value == 0.0


@pytest.mark.parametrize(
  "junk", ["", " ", "\n####", "<answer></answer>", "####"]
)
def test_empty_text_is_unparsed(supply, junk):
  task, take = supply
  problem = take(_home(task), n=1)[0]
  assert task.reward(problem, junk).kind == "unparsed"
  assert task.lenient(problem, junk).kind == "unparsed"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  text=st.text(max_size=40)
  | st.text("#0123456789+-*/()=<>{}\\ \n$,.%", max_size=60).map(
    "#### {}".format
  ),
)
def test_junk_never_raises_and_is_never_correct(name, text):
  task = _module(name)
  # No fuzzed text writes this number, and no seven figures sum to it.
  meta = {"key": "k", "difficulty": 1, "numbers": [7919] * 3, "target": 23757}
  problem = Problem("p", "71390174.5", meta)
  for grade in (task.reward, task.lenient):
    assert grade(problem, text).kind in ("wrong", "unparsed"), text


def test_an_unknown_split_is_named(supply):
  _, take = supply
  with pytest.raises(ValueError, match=r"'validation'.*train, test, ood"):
    take("validation", n=1)
