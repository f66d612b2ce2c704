"""A corpus as it is written for training: whole, counted, and not the test."""

import json

import pytest

from experiments import run
from research.data import datasets
from tests.experiments import tiny

PLANTED = "the liver stores iron and many vitamins for the body"
PAIRS = [
  {"prompt": f"What is {x}?", "completion": f"It is {x * 9} of {x}."}
  for x in "abcdef"
]
BOOK = [{"text": f"Chapter {i}.\n{'word ' * i}end."} for i in range(1, 7)]


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def store(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  told = (r if isinstance(r, str) else json.dumps(r) for r in rows)
  path.write_text("".join(row + "\n" for row in told))
  return path


@pytest.fixture
def write(tmp_path):
  """write(rows, **changes): the records that are written, and the outputs."""

  def ran(rows=PAIRS, seed=0, **changes):
    c = tiny.get_config("distil").to_dict()
    del c["distilled"]
    given = {"path": str(store(tmp_path / "own.jsonl", rows))} if rows else {}
    c["corpus"] = {"stage": "experiments.stages.corpus"} | given | changes
    c["stages"] = ("annotate", "corpus")
    c["seed"] = seed
    module, built = run.plan(c)["corpus"]
    folder = tmp_path / "corpus"
    folder.mkdir(exist_ok=True)
    inputs = {"annotate": {"folder": str(tmp_path / "annotate")}}
    outputs = module.run(built, inputs, folder)
    return lines(folder / "corpus.jsonl"), outputs

  return ran


def plain(records):
  """Records without their keys, in an order of their own."""
  rows = [{n: v for n, v in r.items() if n != "key"} for r in records]
  return sorted(rows, key=json.dumps)


def test_all_of_a_file_in_an_order_of_the_seed(write):
  records, outputs = write()
  assert plain(records) == sorted(PAIRS, key=json.dumps)
  assert sorted(r["key"] for r in records) == [
    f"own.jsonl/{i}" for i in range(6)
  ]
  learned = sum(len(pair["completion"]) for pair in PAIRS)
  assert (outputs["kept"], outputs["bytes"]) == (6, learned)
  assert outputs["summary"] == {"corpus_kept": 6, "corpus_bytes": learned}
  assert write()[0] == records != write(seed=1)[0]
  few, _ = write(count=2)
  assert few == records[:2]


def test_pairs_as_documents(write):
  records, outputs = write([*PAIRS, *BOOK], form="document")
  texts = [f"{p['prompt']}\n{p['completion']}" for p in PAIRS]
  assert {r["text"] for r in records} == {*texts, *(b["text"] for b in BOOK)}
  assert all(set(r) == {"key", "text"} for r in records)
  assert outputs["bytes"] == sum(len(r["text"]) for r in records)
  talk = {"messages": [{"role": "assistant", "content": "x"}]}
  assert plain(write([talk])[0]) == [talk]
  with pytest.raises(ValueError, match=r"own\.jsonl/0: a conversation is no"):
    write([talk], form="document")


def test_what_is_wrong_with_a_file_is_told_and_passed_over(write):
  bad = ["{", PAIRS[0] | {"sorce": "x"}, '{"text": "\\ud800"}', {"txt": "y"}]
  records, outputs = write([PAIRS[1], *bad])
  assert plain(records) == sorted(PAIRS[:2], key=json.dumps)
  assert outputs["faults"] == {
    "not a line of JSON": [2],
    "unknown field 'sorce'": [3],
    "`text` is not valid Unicode": [4],
    "wants `messages`, or `prompt` and `completion`, or `text`": [5],
  }


CLEAN = {"gates": [{"name": "research.annotation.decontaminate"}]}


def test_planted_overlap_is_found(write, tmp_path):
  """In a document, in an answer, in a talk; short questions whole."""
  asked = {"prompt": "Doctor, what is e?", "completion": f"So {PLANTED}!"}
  store(tmp_path / "annotate" / "test.jsonl", [asked])
  sets = [
    {"path": "{annotate}/test.jsonl", "field": field}
    for field in ("prompt", "completion")
  ]
  planted = [
    {"text": f"Know that THE liver, {PLANTED[10:]}."},
    {"prompt": "Why?", "completion": f"Because {PLANTED}."},
    {"messages": [{"role": "user", "content": PLANTED},
                  {"role": "assistant", "content": "x"}]},
    {"prompt": "Hm. Doctor, what is e?", "completion": "x"},
  ]  # fmt: skip
  near = {"text": "The liver stores iron and many other things."}  # 7 words
  rows = [*planted, near, *PAIRS]
  records, outputs = write(rows, held_out=sets, **CLEAN)
  assert plain(records) == sorted([near, *PAIRS], key=json.dumps)
  dropped = lines(tmp_path / "corpus" / "dropped.jsonl")
  assert sorted(r["key"] for r in dropped) == [
    f"own.jsonl/{i}" for i in range(4)
  ]
  assert all("liver" in r["detail"] or "doctor" in r["detail"] for r in dropped)
  gate = outputs["gates"][-1]
  assert (gate["in"], gate["out"]) == (11, 7)
  assert [told["met"] for told in gate["held_out"].values()] == [1, 1]
  assert outputs["summary"]["corpus_dropped"] == 4
  assert len(write(rows)[0]) == 11  # the control: without the gate all stay
  with pytest.raises(ValueError, match="no evaluation set is named"):
    write(rows, **CLEAN)
  with pytest.raises(ValueError, match="no record is left of 4"):
    write(planted, held_out=sets, **CLEAN)


def test_a_published_set(write, tmp_path, monkeypatch):
  rows = {
    "medquad": [{"question": "Q?", "answer": "A.", "source": "S", "url": "u"}],
    "openstax": [{"module": "m", "chapter": "", "title": "T", "text": "X"}],
  }
  read = lambda name, split, *where: rows[name] if split == "test" else []
  monkeypatch.setattr(datasets, "source", read)
  records, _ = write(None, published="medquad", split="test")
  told = {"key": "medquad/test/0", "prompt": "Q?", "completion": "A."}
  assert records == [told]
  records, _ = write(None, published="openstax", split="test")
  assert records == [{"key": "openstax/test/0", "text": "X"}]


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"published": "medquad"}, "either a published set or a path"),
    ({"count": 0}, "at least 1"),
    ({"form": "poem"}, "form is 'poem'"),
    ({"path": "{nobody}/x.jsonl"}, "names no stage that has run"),
    ({"path": "none.jsonl"}, "no such file"),
  ],
)
def test_bad_plans(write, changes, said):
  with pytest.raises((ValueError, FileNotFoundError), match=said):
    write(**changes)


def poem(seed):
  """Text that cannot be guessed."""
  rows = [f"{(i * 7919 + seed) % 9973:04d}" for i in range(24)]
  return {"text": " ".join(rows)}


@pytest.mark.slow
def test_a_student_knows_the_documents_that_it_read(here, tmp_path):
  """What was trained on shows; what was held out of it does not."""
  own = store(tmp_path / "own.jsonl", [poem(i) for i in range(4)])
  other = store(tmp_path / "other.jsonl", [poem(i) for i in (2001, 5005)])
  config = tmp_path / "recipe.py"
  config.write_text(f"""
from ml_collections import ConfigDict
from tests.experiments import tiny

def get_config():
  c = tiny.get_config("distil").to_dict()
  del c["annotate"]
  c["model"] |= {{"width": 64, "context": 128}}
  c["read"] = {{"stage": "experiments.stages.corpus", "path": {str(own)!r}}}
  c["distilled"] |= {{
    "corpora": [{{"path": "{{read}}/corpus.jsonl"}}], "length": 128, "rows": 4}}
  c["distilled"]["loop"] |= {{"steps": 120, "save_every": 120}}
  score = {{"stage": "experiments.stages.score", "rows": 4, "length": 128,
            "students": ["distilled"]}}
  c["own"] = score | {{"corpus": {str(own)!r}}}
  c["other"] = score | {{"corpus": {str(other)!r}}}
  c["stages"] = ("read", "distilled", "own", "other")
  return ConfigDict(c)
""")
  assert here(tmp_path / "run", config=config) is None
  nats = {}
  for stage in ("own", "other"):
    done = json.loads((tmp_path / "run" / stage / "done.json").read_text())
    nats[stage] = done["summary"]["distilled/nats"]["mean"]
  assert nats["own"] < 0.7 * nats["other"], nats
