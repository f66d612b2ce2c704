"""Turn by turn: what is learned, what is kept, and when an episode ends."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research import segments
from research.data import text
from research.environments import calculator
from research.models import presets, transformer
from research.sampling import engine, episodes, rollout
from research.sampling.sampler import Sampling
from research.types import Problem, Turn, Verdict

TOKENIZER = text.ByteTokenizer()
END = TOKENIZER.end
PROBLEMS = [Problem(x, "1", {"key": x}) for x in ("ab", "c", "defgh")]
MODEL = dataclasses.replace(
  presets.PRESETS["tiny"], width=32, layers=2, mlp=64, head_dim=8, context=128
)
WON = Verdict("correct", 1.0)


def echo(turns):
  """An environment that repeats what it is told, and ends after `turns`."""

  def step(state, said):
    ended = WON if state + 1 == turns else None
    return Turn(state + 1, f"<{said[:2]}>", ended)

  start = lambda problem, seed: Turn(0, problem.prompt)
  return types.SimpleNamespace(start=start, step=step)


def scripted(monkeypatch, *turns):
  """The model says what is written here, a list of ids a turn and episode."""
  told = iter(turns)

  def complete(model, params, prompts, key, *, names, stop, **rest):
    lines = next(told)
    said = [np.array(lines[i], np.int32) for i in names]
    ended = lambda ids: bool(np.isin(ids[-1], stop))
    values = lambda ids: -np.arange(1.0, len(ids) + 1)
    return [engine.Completion(x, values(x), not ended(x)) for x in said]

  monkeypatch.setattr(engine, "complete", complete)


def play(environment, problems=PROBLEMS, params=None, key=None, **rest):
  limits = {"turns": 4, "room": 100, "new_tokens": 8} | rest
  budget = rollout.Budget(Sampling(1.0), limits["new_tokens"], 4)
  key = jax.random.key(0) if key is None else key
  within = episodes.Limits(**limits)
  complete = rollout.completer(MODEL, params, TOKENIZER, budget)
  return episodes.play(complete, TOKENIZER, environment, problems, key, within)


def test_sampled_tokens_are_kept_and_the_environments_are_not_learned(
  monkeypatch,
):
  """Byte 200 alone is no text: decoding and encoding again would drift."""
  scripted(monkeypatch, [[200, 65, END]], [[66, END]])
  (played,) = play(echo(2), PROBLEMS[:1])
  opening = [*TOKENIZER.opening("user"), 97, 98, END]
  opening += TOKENIZER.opening("assistant")
  said = [*"<\ufffdA>".encode(), END]
  between = [*TOKENIZER.opening("user"), *said]
  between += TOKENIZER.opening("assistant")
  wanted = [*opening, 200, 65, END, *between, 66, END]
  np.testing.assert_array_equal(played.tokens, wanted)
  drawn = [0] * len(opening) + [1] * 3 + [0] * len(between) + [1] * 2
  np.testing.assert_array_equal(played.mask, drawn)
  lines = [0] * len(opening) + [-1, -2, -3] + [0] * len(between) + [-1, -2]
  np.testing.assert_array_equal(played.logprobs, lines)
  assert played.verdict == WON and played.sampled == 5
  roles = [(m["role"], m["content"]) for m in played.messages]
  assert roles == [
    ("user", "ab"),
    ("assistant", "\ufffdA"),
    ("user", "<\ufffdA>"),
    ("assistant", "B"),
  ]


def test_when_an_episode_ends(monkeypatch):
  """One is cut off, one has no room for a second turn, one for no third."""
  first = [[65] * 8, [65, 65, 65, 65, END], [END]]
  scripted(monkeypatch, first, [None, None, [END]])
  played = play(echo(9), room=23)
  assert [e.truncated for e in played] == [True] * 3
  assert [len(e.messages) for e in played] == [2, 3, 5]
  assert {e.verdict for e in played} == {episodes.CUT}
  assert all(len(e.tokens) <= 23 for e in played)


def test_turns_are_counted(monkeypatch):
  scripted(monkeypatch, [[END]] * 3, [[END]] * 3)
  played = play(echo(9), turns=2)
  assert [len(e.messages) for e in played] == [5] * 3
  assert {e.verdict for e in played} == {episodes.CUT}


def test_a_verdict_before_the_last_turn_is_not_cut(monkeypatch):
  scripted(monkeypatch, [[END]] * 3)
  assert [e.verdict for e in play(echo(1), turns=1)] == [WON] * 3


@pytest.fixture(scope="module")
def params():
  return transformer.init(MODEL, jax.random.key(1))


def test_log_probs_are_those_of_the_whole_conversation(params):
  """Every turn is prefilled anew; scored at once it says the same."""
  asked = [Problem(x, "871", {"key": x}) for x in ("48*37-905", "1+1")]
  key = jax.random.key(3)
  played = play(echo(3), asked, params, key, new_tokens=12, room=128)
  record = {"reward": 1.0, "group": 0, "truncated": False}
  out = rollout.pack(
    [rollout.segment(e.tokens, e.mask, e.logprobs, record, 0) for e in played],
    length=128,
    multiple=1,
    pad=TOKENIZER.pad,
  )
  hidden_BTD, _, _ = transformer.apply(
    MODEL, params, out.tokens_BT, out.positions_BT, out.segments_BT
  )
  logprobs_BT, _ = kernels.token_logprobs(
    hidden_BTD,
    transformer.unembedding(MODEL, params),
    segments.next_tokens(jnp.asarray(out.tokens_BT)),
  )
  drawn = np.asarray(out.mask_BT) > 0
  assert drawn.sum() == sum(e.sampled for e in played) > 20
  scored = np.asarray(logprobs_BT)[drawn]
  np.testing.assert_allclose(scored, out.logprobs_BT[drawn], atol=1e-4)


def test_an_episode_does_not_depend_on_those_beside_it(params):
  alone = play(echo(3), PROBLEMS[:1], params, new_tokens=6)
  beside = play(echo(3), PROBLEMS, params, new_tokens=6)
  np.testing.assert_array_equal(alone[0].tokens, beside[0].tokens)
  twice = play(echo(3), [PROBLEMS[0]] * 2, params, new_tokens=6)
  assert not np.array_equal(twice[0].tokens, twice[1].tokens)


def test_an_environments_own_player():
  problem = Problem("48*37-905", "871", {"key": "k"})
  played = episodes.recite(calculator, problem, 0)
  assert played.verdict.kind == "correct" and len(played.messages) == 6
