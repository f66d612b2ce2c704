"""The sampler: what it says it drew is what the trainer would say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research import segments
from research.models import transformer
from research.models.config import Model
from research.sampling import engine
from research.sampling.sampler import Sampling, draw, log_law

MODEL = Model(
  vocab=24,
  width=32,
  layers=2,
  kv_heads=2,
  groups=2,
  head_dim=8,
  mlp=48,
  context=128,
  qk_norm=True,
)
STOP = 23
PARAMS = transformer.init(MODEL, jax.random.key(0))
PROMPTS = [
  np.random.default_rng(n).integers(0, 20, n) for n in (1, 7, 16, 3, 17)
]


@functools.cache
def key():
  return jax.random.key(5)


def complete(prompts, sampling=None, model=MODEL, **changes):
  kwargs = {"new_tokens": 32, "stop": STOP, "rows": 4} | changes
  return engine.complete(
    model,
    PARAMS,
    prompts,
    key(),
    sampling=sampling or Sampling(),
    **kwargs,
  )


@functools.partial(jax.jit, static_argnames=("model", "temperature"))
def _logprobs(model, ids, temperature):
  positions = jnp.arange(ids.shape[1])[None]
  hidden, _, _ = transformer.apply(
    model, PARAMS, ids, positions, jnp.ones_like(ids)
  )
  logprobs, _ = kernels.token_logprobs(
    hidden,
    transformer.unembedding(model, PARAMS),
    segments.next_tokens(ids),
    temperature=temperature,
  )
  return logprobs


def rescore(prompt, completion, temperature, model=MODEL):
  """The trainer's log-probabilities of a completion, of one padded shape."""
  ids = np.concatenate([prompt, completion.tokens])
  padded = np.pad(ids, (0, 64 - len(ids)))[None]
  logprobs = np.asarray(_logprobs(model, padded, temperature))[0]
  return logprobs[len(prompt) - 1 : len(ids) - 1]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_trainer_agree(temperature):
  out = complete(PROMPTS, Sampling(temperature))
  for prompt, completion in zip(PROMPTS, out, strict=True):
    assert completion.tokens.size > 0
    trainer = rescore(prompt, completion, temperature)
    assert np.abs(completion.logprobs - trainer).max() <= 1e-5
  wrong = rescore(PROMPTS[1], out[1], 2.0)
  assert np.abs(out[1].logprobs - wrong).max() > 1e-2


def test_in_bf16_few_ratios_leave_the_trust_region():
  """Of trainer to sampler, as a policy gradient's importance weights."""
  model = dataclasses.replace(MODEL, dtype="bfloat16")
  prompts = PROMPTS * 4
  out = complete(prompts, model=model, rows=20)

  def gaps(temperature):
    parts = [
      rescore(p, c, temperature, model) - c.logprobs
      for p, c in zip(prompts, out, strict=True)
    ]
    return np.concatenate(parts)

  off = lambda gap: np.mean(np.abs(np.exp(gap) - 1) > 0.1)
  same, wrong = gaps(1.0), gaps(2.0)
  assert same.size > 200
  assert off(same) <= 0.05, off(same)
  assert np.abs(same).mean() <= 0.02, np.abs(same).mean()
  wide = rescore(prompts[0], out[0], 1.0, MODEL) - out[0].logprobs
  assert np.abs(wide).max() > 1e-5  # bf16 indeed
  assert off(wrong) > 0.5


def test_a_row_does_not_depend_on_the_rows_beside_it():
  whole = complete(PROMPTS)
  for rows in (1, 3, 8):
    again = complete(PROMPTS, rows=rows)
    for a, b in zip(whole, again, strict=True):
      np.testing.assert_array_equal(a.tokens, b.tokens)
      np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


def test_greedy_alone_equals_greedy_in_a_padded_batch():
  batch = complete(PROMPTS, Sampling(0.0))
  for prompt, completion in zip(PROMPTS, batch, strict=True):
    alone = complete([prompt], Sampling(0.0), rows=1)[0]
    np.testing.assert_array_equal(alone.tokens, completion.tokens)
    assert not np.any(completion.logprobs)


def test_samples_of_one_prompt_differ():
  out = complete([PROMPTS[1]] * 4)
  assert len({tuple(c.tokens) for c in out}) > 1


def test_stopping_and_truncation():
  out = complete([PROMPTS[1]] * 32, rows=32, new_tokens=16)
  assert {c.truncated for c in out} == {True, False}
  for c in out:
    ended = c.tokens[-1] == STOP
    assert ended != c.truncated
    assert STOP not in c.tokens[:-1]
    assert len(c.tokens) == len(c.logprobs) <= 16
    assert ended or len(c.tokens) == 16


def test_a_row_stops_at_any_of_several_tokens():
  once = complete([PROMPTS[1]] * 32, rows=32, new_tokens=16)
  stops = (STOP, 3, 11)
  out = complete([PROMPTS[1]] * 32, rows=32, new_tokens=16, stop=stops)
  assert {int(c.tokens[-1]) for c in out if not c.truncated} == set(stops)
  for one, c in zip(once, out, strict=True):
    assert c.truncated != (c.tokens[-1] in stops)
    assert not np.isin(c.tokens[:-1], stops).any()
    np.testing.assert_array_equal(c.tokens, one.tokens[: len(c.tokens)])
    np.testing.assert_array_equal(c.logprobs, one.logprobs[: len(c.tokens)])


def test_bad_prompts_are_named():
  with pytest.raises(ValueError, match="prompt 1 is empty"):
    complete([PROMPTS[0], np.array([], int)])
  with pytest.raises(ValueError, match=r"prompt 0 has 100 tokens.*128"):
    complete([np.zeros(100, int)])


LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


@pytest.mark.parametrize(
  "sampling, expected",
  [
    (Sampling(), [0.5, 0.3, 0.15, 0.05]),
    (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
    (Sampling(top_p=0.7), [0.625, 0.375, 0, 0]),
    (Sampling(top_p=0.5), [1, 0, 0, 0]),
    (Sampling(top_p=0.81), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
    (Sampling(top_k=3, top_p=0.6), [0.625, 0.375, 0, 0]),
    (Sampling(0.0), [1, 0, 0, 0]),
  ],
)
def test_laws(sampling, expected):
  law = jnp.exp(log_law(LOGITS, sampling))[0]
  np.testing.assert_allclose(law, expected, atol=1e-6)


def test_temperature():
  logits = jnp.array([[0.0, np.log(3)]])
  cool = log_law(logits, Sampling(0.5))[0, 1]
  np.testing.assert_allclose(cool, -0.105361, atol=1e-6)


def test_draws_follow_the_law_and_report_it():
  n = 4000
  sampling = Sampling(0.8, top_k=3)
  keys = jax.random.split(jax.random.key(0), n)
  tokens, logprobs = draw(keys, jnp.tile(LOGITS, (n, 1)), sampling)
  law = np.exp(log_law(LOGITS, sampling)[0])
  share = np.bincount(tokens, minlength=4) / n
  np.testing.assert_allclose(share, law, atol=0.03)
  np.testing.assert_allclose(np.exp(logprobs), law[tokens], rtol=1e-5)


@pytest.mark.parametrize("bad", [{"top_p": 0.0}, {"temperature": -1.0}])
def test_no_law(bad):
  with pytest.raises(ValueError, match="top_p is in"):
    Sampling(**bad)
