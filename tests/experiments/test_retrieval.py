"""Passages before prompts: who finds them, and that a control is one."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from experiments import retrieval, settings, student
from experiments.retrieval import Asked, Retrieval
from experiments.settings import Address, Plugin, Problems, Run, Stage
from experiments.stages import evaluate, ground, rerank
from research.data import text
from research.knowledge import retrieve
from research.models import presets, transformer
from research.sampling import engine, rollout
from research.tasks import hops
from tests import archives

RUN = Run(
  seed=0,
  tokenizer="bytes",
  model=presets.make("tiny", width=32, layers=1, kv_heads=1, mlp=32),
  mesh=settings.Mesh(),
)
BYTES = text.load_tokenizer("bytes")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("data")
  archives.made_up(root)
  return root


@pytest.fixture(scope="module")
def source(root):
  address = Address("research.knowledge.facts.passages")
  return Plugin(address, {"data_dir": str(root)})


@pytest.fixture(scope="module")
def problems(root):
  return list(itertools.islice(hops.problems("test", 0, data_dir=root), 6))


@pytest.fixture(scope="module")
def asked(problems):
  return [
    Asked(p.meta["key"], p.prompt, hops.trace(p, 0), p.answer) for p in problems
  ]


@dataclasses.dataclass(frozen=True)
class Stages:
  """As much of a stage's config as a retrieval reads."""

  run: Run = RUN


def recall(asked, wanted):
  found = retrieval.find(Stages(), wanted, {}, asked)
  assert {len(passages) for passages in found} == {wanted.count}
  values = retrieval.recalls(wanted, asked, found)
  assert len(values) == len(asked)
  return np.mean(list(values.values()))


def test_the_rationale_finds_all_and_chance_finds_nothing(asked, source):
  by = lambda way: Retrieval(source, way, 8, pool=16)
  assert recall(asked, by("rationale")) == 1
  assert recall(asked, by("question")) >= 0.5
  assert recall(asked, by("feedback")) >= 0.5
  assert recall(asked, by("random")) == 0
  blind = [retrieval.find(Stages(), by("random"), {}, asked) for _ in range(2)]
  assert blind[0] == blind[1]


def test_an_answer_planted_in_a_control_is_caught(asked, source, monkeypatch):
  index = retrieval.index_of(source)
  fact = asked[3].rationale.splitlines()[1]

  def planted(index, rng, answer, count):
    return [index.passages.index(fact)] if answer == asked[3].answer else [0]

  wanted = Retrieval(source, "random", 1)
  clean = [a for a in asked if not retrieve.holds(index.passages[:1], a.answer)]
  monkeypatch.setattr(retrieve, "at_random", planted)
  with pytest.raises(ValueError, match=f"hold its answer '{asked[3].answer}'"):
    retrieval.find(Stages(), wanted, {}, clean)
  clean.remove(asked[3])
  assert retrieval.find(Stages(), wanted, {}, clean)


def test_the_reranker_reorders_the_pool(asked, source, monkeypatch):
  wanted = Retrieval(source, "reranker", 2, 16, Stage("judge"))
  index = retrieval.index_of(source)
  params = transformer.init(RUN.model, jax.random.key(0))
  monkeypatch.setattr(student, "load", lambda *_: params)
  needed = {a.question: retrieve.needed(index, a.rationale) for a in asked}

  def judge(model, given, tokenizer, pools, *, mesh):
    assert given is params and tokenizer.name == "bytes"
    return [
      np.array([float(p in needed[question]) for p in passages])
      for question, passages in pools
    ]

  monkeypatch.setattr(retrieval.rerank, "judge", judge)
  pools = retrieval.find(
    Stages(), Retrieval(source, "feedback", 16, 16), {}, asked
  )
  best = [
    len(needed[a.question] & set(pool)) / 2
    for a, pool in zip(asked, pools, strict=True)
  ]
  assert recall(asked, wanted) == np.mean(best)


def corpus(path, asked):
  rows = [{"prompt": a.question, "completion": a.rationale} for a in asked]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def test_a_grounded_corpus_is_the_same_behind_passages(asked, source, tmp_path):
  path = corpus(tmp_path / "traces.jsonl", asked)
  ways = Retrieval(source, "rationale", 3), Retrieval(source, "random", 3)
  for passages, told in zip(ways, (1.0, 0.0), strict=True):
    way = passages.by
    folder = tmp_path / way
    folder.mkdir()
    config = ground.Config(RUN, path, passages)
    done = ground.run(config, {}, folder)
    assert done["records"] == len(asked)
    assert done["summary"][f"{way}/recall@3"]["mean"] == told
    assert done["summary"][f"{way}/answer_told"]["mean"] == told
    lines = (folder / "traces.jsonl").read_text().splitlines()
    for a, row in zip(asked, map(json.loads, lines), strict=True):
      *found, question = row["prompt"].splitlines()
      assert (question, row["completion"]) == (a.question, a.rationale)
      assert found == sorted(found) and len(found) == 3


def test_a_conversation_has_no_place_for_passages(tmp_path):
  turns = [{"role": "user", "content": "a"}]
  turns += [{"role": "assistant", "content": "b"}]
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps({"messages": turns}) + "\n")
  with pytest.raises(ValueError, match="record 1: passages go before"):
    ground.read(str(path), {})


@pytest.fixture
def quoting(monkeypatch):
  """Students that answer what they are shown; lists of what they were asked."""
  asked = []

  def quote(model, params, tokenizer, given, key, budget, mesh):
    asked.append([problem.prompt for problem in given])
    said = []
    for problem in given:
      known = set(problem.meta["facts"]) <= set(problem.prompt.splitlines())
      answer = f"#### {problem.answer if known else 'none'}"
      tokens = np.array([*tokenizer.encode(answer), tokenizer.end])
      logprobs = np.zeros(len(tokens), np.float32)
      said.append(engine.Completion(tokens, logprobs, False))
    return said

  monkeypatch.setattr(rollout, "write", quote)
  monkeypatch.setattr(student, "load", lambda *_: None)
  return asked


def test_a_reader_is_asked_behind_its_passages(
  problems, source, root, quoting, tmp_path
):
  task = Address("research.tasks.hops")
  asked = Problems(task, "test", {"data_dir": str(root)})
  config = evaluate.Config(
    run=RUN,
    students=(Stage("plain"),),
    readers={
      way: evaluate.Reader(Stage("plain"), Retrieval(source, way, 8))
      for way in ("rationale", "random")
    },
    suites=(evaluate.Suite("", asked, 6, 8),),
    samples=1,
    ks=(1,),
    pairs=(("rationale", "plain"), ("random", "plain")),
    rows=4,
  )
  found = evaluate.run(config, {}, tmp_path)["summary"]
  means = {name: line["mean"] for name, line in found.items() if "@" in name}
  assert means["rationale/pass@1"] == means["rationale/recall@8"] == 1
  assert means["random/pass@1"] == means["random/recall@8"] == 0
  assert means["rationale_minus_plain/pass@1"] == 1
  assert means["plain/pass@1"] == 0 and "plain/recall@8" not in found
  assert quoting[0] == [p.prompt for p in problems]
  assert [p.splitlines()[-1] for p in quoting[1]] == quoting[0]


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"count": 0}, "1 <= count <= pool"),
    ({"pool": 2}, "1 <= count <= pool"),
    ({"by": "reranker"}, "a reranker's stage is named"),
    ({"reranker": Stage("judge")}, "a reranker's stage is named"),
  ],
)
def test_passages_that_nobody_could_choose(source, change, told):
  with pytest.raises(ValueError, match=told):
    Retrieval(**{"source": source, "by": "question", "count": 3} | change)


def test_a_reader_has_a_name_of_its_own(source):
  reader = evaluate.Reader(Stage("plain"), Retrieval(source, "question", 3))
  rest = {"suites": (), "samples": 1, "ks": (1,), "rows": 1}
  with pytest.raises(ValueError, match=r"named as a student is: \['plain'\]"):
    evaluate.Config(
      RUN, (Stage("plain"),), readers={"plain": reader}, pairs=(), **rest
    )
  with pytest.raises(ValueError, match="is not two of"):
    evaluate.Config(RUN, (), readers={"r": reader}, pairs=(("r", "q"),), **rest)


def test_a_reranker_learns_the_rationales_order(asked, source, tmp_path):
  config = rerank.Config(
    run=RUN,
    corpus=corpus(tmp_path / "traces.jsonl", asked),
    source=source,
    candidates=4,
    rows=4,
    length=192,
    optimizer=settings.build(
      rerank.optimizers.Optimizer, {"learning_rate": 1e-2}
    ),
    loop=rerank.loop.Loop(steps=12, save_every=12),
  )
  folder = tmp_path / "judge"
  folder.mkdir()
  assert rerank.run(config, {}, folder) == {"shown": 48}
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  losses = [json.loads(line)["loss"] for line in lines]
  assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
  inputs = {"judge": {"folder": str(folder)}}
  wanted = Retrieval(source, "reranker", 2, 8, Stage("judge"))
  found = retrieval.find(Stages(), wanted, inputs, asked)
  assert {len(passages) for passages in found} == {2}
