"""A checkpoint teaches what the engine samples from it, and nothing else."""

import jax
import pytest

from research.data import text
from research.models import huggingface
from research.sampling import rollout
from research.sampling.sampler import Sampling
from research.tasks import chain
from research.teachers import answers, checkpoint
from research.types import Problem
from tests.research.teachers.folders import checkpoint as make

ASKED = [Problem(f"ask {i}", "1", {"key": str(i)}) for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return make(tmp_path_factory.mktemp("teacher") / "x")


def written(folder, n=1, seed=0, problems=ASKED, **args):
  how = {"new_tokens": 24, "rows": 4, "temperature": 1.0, "top_p": 1.0} | args
  return list(
    checkpoint.write(chain, problems, n, seed, directory=str(folder), **how)
  )


def test_greedy_is_what_the_engine_says(folder):
  traces = written(folder, temperature=0.0)
  tokenizer = text.load_tokenizer(str(folder))
  model, params = huggingface.load(folder)
  budget = rollout.Budget(Sampling(0.0), 24, 6)
  key = jax.random.key(0)
  said = rollout.write(model, params, tokenizer, ASKED, key, budget)
  graded = rollout.grade(chain, tokenizer, ASKED, said)
  assert [t.text for t in traces] == [r["completion"] for r in graded]
  assert [t.tokens for t in traces] == [r["tokens"] for r in graded]
  ends = ["length" if r["truncated"] else "stop" for r in graded]
  assert [t.finish for t in traces] == ends


def test_samples_follow_from_the_seed(folder):
  first = written(folder, n=3)
  texts = [t.text for t in first]
  assert len(set(texts)) == len(texts) == 18
  assert {t.finish for t in first} == {"stop", "length"}
  assert not any(
    "<|im_end|>" in str(t.text) for t in first if t.finish == "stop"
  )
  assert written(folder, n=3) == first
  assert [t.text for t in written(folder, n=3, seed=1)] != texts


def test_split_over_devices_it_says_the_same(folder):
  assert written(folder, mesh={"data": 4}) == written(folder)


def test_what_does_not_fit_is_an_error_among_others(folder):
  long = Problem("x" * 80, "1", {"key": "long"})
  traces = written(folder, problems=[ASKED[0], long, ASKED[1]])
  assert [t.finish == "error" for t in traces] == [False, True, False]
  assert "room for 72" in traces[1].error and traces[1].text is None
  alone = written(folder, problems=[long])
  assert alone == [traces[1]]


def test_what_cannot_be_said_is_an_error(folder):
  talks = [({"role": "robot", "content": "x"},), answers.question("hi")]
  found = list(
    checkpoint.reply(talks, 0, directory=str(folder), new_tokens=4, rows=2)
  )
  assert "robot" in found[0].error and found[1].text is not None


def test_a_system_speaks_first(folder):
  plain, told = written(folder), written(folder, system="Be brief.")
  assert [t.text for t in plain] != [t.text for t in told]


def test_its_account_is_the_tokens(folder):
  replies = checkpoint.reply(
    [answers.question("hi")] * 3, 0, directory=str(folder), new_tokens=4
  )
  found = [next(replies) for _ in range(3)]
  assert answers.account(replies) == {
    "prompt_tokens": sum(a.prompt_tokens for a in found),
    "completion_tokens": sum(a.completion_tokens for a in found),
  }


def test_another_tokenizer(folder):
  """A model of bytes has no tokenizer.json."""
  (folder / "tokenizer.json").rename(folder / "hidden")
  try:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
      written(folder)
    [first, *_] = written(folder, tokenizer="bytes", n=2)
  finally:
    (folder / "hidden").rename(folder / "tokenizer.json")
  assert first.text and first.text != written(folder)[0].text


def test_a_tokenizer_that_is_too_large(tmp_path):
  narrow = make(tmp_path / "x", vocab=260)
  assert written(narrow)
  with pytest.raises(
    ValueError, match="260 rows for the 261 tokens of 'bytes'"
  ):
    written(narrow, tokenizer="bytes")
