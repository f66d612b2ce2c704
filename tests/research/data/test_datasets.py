import gzip
import itertools
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import types

import pytest

from research import splits
from research.data import datasets, readers
from research.types import Problem

ROOT = pathlib.Path(__file__).parents[3]
REAL = pathlib.Path(os.environ.get("PITH_DATA", ROOT.parent / "shared/data"))
needs_data = pytest.mark.skipif(
  not (REAL / "gsm8k/train.jsonl").is_file(),
  reason="the published files are absent: set PITH_DATA to their folder",
)


def rows(n, start=0):
  return [
    {"question": f"Wie groß ist {i}?", "answer": f"it is\n#### {i}"}
    for i in range(start, start + n)
  ]


def write(root, split, lines):
  path = root / "gsm8k" / f"{split}.jsonl"
  path.parent.mkdir(exist_ok=True, parents=True)
  told = [r if isinstance(r, str) else json.dumps(r) for r in lines]
  path.write_text("".join(line + "\n" for line in told))
  return path


@pytest.fixture
def data(tmp_path):
  write(tmp_path / "data", "train", rows(25))
  write(tmp_path / "data", "test", rows(3, 100))
  return tmp_path / "data"


def test_gsm8k_in_file_order_without_tensorflow(data, tmp_path):
  train = datasets.source("gsm8k", "train", data, tmp_path / "cache")
  assert list(train) == rows(25)
  assert train[-1] == rows(25)[-1] and train[1:3] == rows(25)[1:3]
  with pytest.raises(IndexError):
    train[25]
  test = datasets.source("gsm8k", "test", data, tmp_path / "cache")
  assert list(test) == rows(3, 100)
  assert list((tmp_path / "cache").glob("*/rows/*/*.array_record*"))
  assert "tensorflow" not in sys.modules


def test_prepared_once_and_anew_when_a_file_changes(data, tmp_path, capsys):
  cache = tmp_path / "cache"
  read = lambda: list(datasets.source("gsm8k", "train", data, cache))
  read()
  assert capsys.readouterr().out == ""
  files = {p: p.stat().st_mtime_ns for p in cache.rglob("*.array_record*")}
  read()
  assert files == {
    p: p.stat().st_mtime_ns for p in cache.rglob("*.array_record*")
  }
  write(data, "train", rows(4, 7))
  assert read() == rows(4, 7)


def test_data_dir_comes_from_argument_or_environment(
  data, tmp_path, monkeypatch
):
  monkeypatch.setenv("PITH_DATA", str(data))
  assert len(datasets.source("gsm8k", "test", None, tmp_path / "c")) == 3
  monkeypatch.setenv("PITH_DATA", str(tmp_path / "nowhere"))
  assert len(datasets.source("gsm8k", "test", data, tmp_path / "c")) == 3


def test_processes_that_start_together_share_a_copy(data, tmp_path):
  script = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from research.data import datasets; "
    "print(len(datasets.source('gsm8k', 'train', *sys.argv[2:])))"
  )
  args = [str(ROOT), str(data), str(tmp_path / "cache")]
  command = [sys.executable, "-c", script, *args]
  both = [
    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(2)
  ]
  for one in both:
    out, err = one.communicate(timeout=120)
    assert one.returncode == 0, err.decode()
    assert out.decode().strip() == "25"


@pytest.mark.parametrize("named", [True, False])
def test_missing_data_says_what_and_how(tmp_path, monkeypatch, named):
  monkeypatch.delenv("PITH_DATA", raising=False)
  with pytest.raises(FileNotFoundError) as error:
    datasets.source("gsm8k", "test", tmp_path if named else None, tmp_path)
  told = str(error.value)
  for part in (
    "gsm8k/train.jsonl",
    "gsm8k/test.jsonl",
    "openai/grade-school-math",
    "data_dir",
    "PITH_DATA",
  ):
    assert part in told
  assert (str(tmp_path) in told) == named
  assert "\n" not in told


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ('{"question": "q"', r"train\.jsonl:3: not a line of JSON"),
    ({"question": "q"}, r"train\.jsonl:3: `answer` must be text"),
    ({"answer": "#### 1"}, r"train\.jsonl:3: `question` must be text"),
    ({"question": "q", "answer": "1"}, r"train\.jsonl:3: .*#### number"),
  ],
)
def test_malformed_line_is_named_and_leaves_no_copy(data, tmp_path, line, said):
  write(data, "train", [*rows(2), line])
  for _ in range(2):
    with pytest.raises(ValueError, match=said) as error:
      datasets.source("gsm8k", "train", data, tmp_path / "cache")
    assert "\n" not in str(error.value)
  write(data, "train", rows(2))
  assert len(datasets.source("gsm8k", "train", data, tmp_path / "cache")) == 2


def test_empty_and_unknown_splits(data, tmp_path):
  with pytest.raises(ValueError, match="gsm8k/train, gsm8k/test, svamp/test"):
    datasets.source("gsm8k", "validation", data, tmp_path)
  write(data, "test", [])
  with pytest.raises(ValueError, match=r"test\.jsonl, .* holds no problems"):
    datasets.source("gsm8k", "test", data, tmp_path / "cache")


def test_svamp_takes_gsm8ks_form(tmp_path):
  path = tmp_path / "svamp" / "svamp_test.jsonl"
  path.parent.mkdir()
  record = {"Body": "There are 4 pens", "Question": "How many?", "Answer": 4.0}
  whole = record | {"Body": "I saw 2.", "Answer": 1234567.5}
  path.write_text(json.dumps(record) + "\n" + json.dumps(whole))
  got = datasets.source("svamp", "test", tmp_path, tmp_path / "cache")
  assert list(got) == [
    {"question": "There are 4 pens. How many?", "answer": "#### 4"},
    {"question": "I saw 2. How many?", "answer": "#### 1234567.5"},
  ]
  path.write_text(json.dumps(record | {"Answer": "4"}))
  with pytest.raises(ValueError, match=r":1: `Answer` must be a number"):
    datasets.source("svamp", "test", tmp_path, tmp_path / "cache")


def _problems(split, seed, least=0):
  numbers = range(3) if split == "file" else itertools.count(least)
  if split == "none":
    return
  for i in numbers:
    meta = {"key": f"{i}", "difficulty": 1}
    yield Problem(f"{i}+{seed}", f"{i + seed}", meta)


STUB = types.SimpleNamespace(
  __name__="stub",
  problems=_problems,
  trace=lambda problem, seed: f"{problem.prompt} by {seed}: {problem.answer}",
  answer_text=lambda problem: f"#### {problem.answer}",
)


def test_problems_are_written_and_kept(tmp_path, monkeypatch):
  make = lambda **args: datasets.problems(
    STUB, "train", **({"seed": 4, "count": 5, "cache_dir": tmp_path} | args)
  )
  got = make()
  assert [r["prompt"] for r in got] == [f"{i}+4" for i in range(5)]
  assert json.loads(got[2]["meta"]) == {"key": "2", "difficulty": 1}
  assert got[2]["answer"] == "6"
  assert len({r["completion"].split()[2] for r in got}) == 5  # own seeds
  assert list(make()) == list(got)
  assert make(write="answer_text")[2]["completion"] == "#### 6"
  assert make(seed=5)[0]["prompt"] == "0+5"
  assert make(least=7)[0]["prompt"] == "7+4"
  assert len(make(count=2)) == 2


def test_problems_end_with_the_file_and_never_empty(tmp_path):
  opts = {"seed": 0, "cache_dir": tmp_path}
  assert len(datasets.problems(STUB, "file", count=9, **opts)) == 3
  with pytest.raises(ValueError, match="split 'none' of stub holds no problem"):
    datasets.problems(STUB, "none", count=9, **opts)


def store(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join(json.dumps(line) + "\n" for line in lines)
  path.write_bytes(gzip.compress(text.encode()))


def asked(i, **changes):
  row = {"question": f"Q{i}?", "answer": f"A {i}.", "url": f"u/{i}"}
  return row | {"source": "S", "focus": "not kept"} | changes


def medquad(tmp_path, lines):
  store(tmp_path / datasets.SETS["medquad"].files["train"], lines)
  parts = ("train", "test")
  return {
    part: list(datasets.source("medquad", part, tmp_path, tmp_path / "cache"))
    for part in parts
  }


def test_medquad_asks_of_nothing_that_was_read(tmp_path):
  """A page, a question or an answer in common: one split, through chains."""
  alone = medquad(tmp_path, [asked(i) for i in range(40)])
  held = [int(row["question"][1:-1]) for row in alone["test"]]
  assert 1 < len(held) < 10 and len(alone["train"]) == 40 - len(held)
  assert alone["test"][0] == {
    name: asked(held[0])[name]
    for name in ("question", "answer", "source", "url")
  }
  one = held[0]
  other = next(i for i in range(one + 1, 40) if i not in held)
  for changes in (
    {"url": f"u/{one}"},
    {"question": f"q{one}?  "},
    {"answer": f" a  {one}"},
  ):
    rows = [asked(i) for i in range(40)]
    rows[other] |= changes
    rows.append(asked(99, url=rows[other]["url"]))  # a link further
    linked = medquad(tmp_path, rows)
    assert rows[other]["question"] in [r["question"] for r in linked["test"]]
    assert "Q99?" in [r["question"] for r in linked["test"]]
    assert len(linked["test"]) == len(held) + 2


def test_groups_by_brute_force():
  every = range(8)
  rng = random.Random(0)
  for _ in range(200):
    items = [set(rng.sample(range(9), rng.randint(0, 2))) for _ in range(8)]
    near = {
      i: {j for j in range(8) if items[i] & items[j]} | {i} for i in every
    }
    for _ in range(8):
      near = {i: set().union(*(near[j] for j in near[i])) for i in every}
    assert readers.groups(items) == [min(near[i]) for i in every]


def test_openstax_modules_are_documents(tmp_path):
  lines = [
    {"module": f"m{i}", "unit": None, "chapter": None if i else "C",
     "title": f"T{i}", "text": f"Line\nof {i}."} for i in range(30)
  ]  # fmt: skip
  store(tmp_path / datasets.SETS["openstax"].files["train"], lines)
  read = lambda part: list(
    datasets.source("openstax", part, tmp_path, tmp_path / "cache")
  )
  train, test = read("train"), read("test")
  assert len(train) + len(test) == 30 and test
  both = {row["module"]: row for row in train + test}
  assert len(both) == 30
  told = {"module": "m0", "chapter": "C", "title": "T0", "text": "Line\nof 0."}
  assert both["m0"] == told and both["m1"]["chapter"] == ""


ARTICLE = {
  "QUESTION": "Does it?",
  "CONTEXTS": ["One.", "Two."],
  "LONG_ANSWER": "It does.",
  "final_decision": "yes",
}


def pubmedqa(tmp_path, articles):
  path = tmp_path / "pubmedqa" / "pqal_train.json"
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(articles))
  return datasets.source("pubmedqa", "train", tmp_path, tmp_path / "cache")


def test_pubmedqa_has_its_abstract_without_the_conclusion(tmp_path):
  (row,) = pubmedqa(tmp_path, {"17": ARTICLE})
  assert row == {
    "key": "17",
    "question": "Does it?",
    "abstract": "One.\nTwo.",
    "long_answer": "It does.",
    "answer": "yes",
  }


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"final_decision": "Yes"}, "article 18: `final_decision` is none of"),
    ({"CONTEXTS": []}, "article 18: `CONTEXTS` must be a list"),
    ({"CONTEXTS": [3]}, "article 18: `CONTEXTS` must be a list"),
    ({"QUESTION": " "}, "article 18: `QUESTION` must be text"),
  ],
)
def test_a_malformed_article_is_named(tmp_path, changes, said):
  with pytest.raises(ValueError, match=said):
    pubmedqa(tmp_path, {"17": ARTICLE, "18": ARTICLE | changes})
  with pytest.raises(ValueError, match="wants an object"):
    pubmedqa(tmp_path, [ARTICLE])


@needs_data
@pytest.mark.parametrize(
  ("name", "split", "count"),
  [
    ("gsm8k", "train", 7473),
    ("gsm8k", "test", 1319),
    ("svamp", "test", 1000),
    ("medquad", "train", 14813),
    ("medquad", "test", 1294),
    ("openstax", "train", 179),
    ("openstax", "test", 19),
    ("pubmedqa", "train", 500),
    ("strategy_qa", "train", 2290),
    ("math", "train", 7496),
    ("math", "test", 500),
  ],
)
def test_published_files(name, split, count, tmp_path_factory):
  cache = tmp_path_factory.getbasetemp() / "published"
  got = datasets.source(name, split, REAL, cache)
  assert len(got) == count
  for row in got[:: max(1, count // 50)]:
    assert row.keys() == set(datasets.SETS[name].fields)
    free = ("chapter", "worked")
    assert all(row[x].strip() for x in row if x not in free)
    if name in ("gsm8k", "svamp"):
      float(row["answer"].split("####")[1].replace(",", ""))


@needs_data
def test_published_medquad_shares_nothing_between_splits(tmp_path_factory):
  """Split by answers alone a third of the pages would be in both."""
  cache = tmp_path_factory.getbasetemp() / "published"
  train, test = (
    list(datasets.source("medquad", part, REAL, cache))
    for part in ("train", "test")
  )
  plain = lambda told: " ".join(re.findall(r"\w+", told.casefold()))
  for name in ("question", "answer", "url"):
    left, right = ({plain(row[name]) for row in rows} for rows in (train, test))
    assert not left & right, name
  by_answer = lambda row: splits.digest(plain(row["answer"])) % 10 == 8
  control = {row["url"] for row in train + test if by_answer(row)}
  leaked = [r for r in train + test if r["url"] in control and not by_answer(r)]
  assert len(leaked) > 4000
