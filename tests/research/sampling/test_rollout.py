"""From samples to a trajectory: nothing is re-tokenised, shifted or lost."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research import segments
from research.algorithms import grpo
from research.data import text
from research.models import presets, transformer
from research.sampling import engine, rollout
from research.sampling.sampler import Sampling
from research.types import Problem, Verdict

TOKENIZER = text.ByteTokenizer()
PROBLEMS = [Problem(x, y, {"key": x}) for x, y in (("ab", "1"), ("c", "2"))]


def done(ids, logprobs=None, truncated=False):
  logprobs = np.arange(1, len(ids) + 1) / -10 if logprobs is None else logprobs
  return engine.Completion(np.array(ids), np.asarray(logprobs), truncated)


def task(verdicts):
  """A grader that says what it is told, one sample after another."""
  told = iter(verdicts)
  return types.SimpleNamespace(reward=lambda problem, written: next(told))


RIGHT, WRONG = Verdict("correct", 1.0), Verdict("wrong", 0.0)


def packed(problems, completions, records, version, **shape):
  prompts = [rollout.prompt_ids(TOKENIZER, p) for p in problems]
  pairs = zip(prompts, completions, strict=True)
  spoken = [rollout.behind(*pair) for pair in pairs]
  examples = [
    rollout.segment(*said, record, version)
    for said, record in zip(spoken, records, strict=True)
  ]
  return rollout.pack(examples, pad=TOKENIZER.pad, **shape)


def sampled(verdicts, completions):
  problems = [PROBLEMS[i // 2] for i in range(len(completions))]
  records = rollout.grade(task(verdicts), TOKENIZER, problems, completions)
  records = [r | {"group": i // 2} for i, r in enumerate(records)]
  trajectory = packed(problems, completions, records, 3, length=16, multiple=4)
  return records, trajectory


COMPLETIONS = [
  done([65, 259]),
  done([200, 65, 66, 259]),
  done([67, 68, 69], truncated=True),
  done([259]),
]


def test_tokens_go_in_as_they_were_sampled():
  """Byte 200 alone is no text: decoding and encoding again would drift."""
  _, out = sampled([RIGHT, WRONG] * 2, COMPLETIONS)
  prompt = rollout.prompt_ids(TOKENIZER, PROBLEMS[0])
  second = (out.segments_BT == 2) & (np.arange(4) == 0)[:, None]
  expected = [*prompt, 200, 65, 66, 259]
  np.testing.assert_array_equal(out.tokens_BT[second], expected)
  assert out.tokens_BT.shape == (4, 16)


def test_masks_and_log_probs_speak_of_the_next_token():
  _, out = sampled([RIGHT, WRONG] * 2, COMPLETIONS)
  n = len(rollout.prompt_ids(TOKENIZER, PROBLEMS[0]))
  row = np.asarray(out.mask_BT[0][: n + 2])
  np.testing.assert_array_equal(row, [0] * (n - 1) + [1, 1, 0])
  logprobs = np.asarray(out.logprobs_BT[0][: n + 2])
  np.testing.assert_allclose(logprobs[n - 1 : n + 1], [-0.1, -0.2], rtol=1e-6)
  assert out.mask_BT.sum() == sum(len(c.tokens) for c in COMPLETIONS)
  np.testing.assert_array_equal(np.unique(out.version_BT), [0, 3])


def test_what_the_prompt_wrote_is_graded_and_shown_but_not_trained():
  """A format reward wants the `<think>` that R1's template writes itself."""
  tokenizer = dataclasses.replace(TOKENIZER, prefill="<think>\n")
  seen = []

  def reward(problem, written):
    seen.append(written)
    return RIGHT

  grader = types.SimpleNamespace(reward=reward)
  records = rollout.grade(grader, tokenizer, PROBLEMS[:1], COMPLETIONS[:1])
  assert seen == ["<think>\nA"] and records[0]["completion"] == seen[0]
  assert records[0]["tokens"] == 2


def test_an_answer_that_is_begun_is_finished_graded_and_shown_whole():
  problem = dataclasses.replace(PROBLEMS[0], begun="1+1=2\n")
  plain, ids = (
    rollout.prompt_ids(TOKENIZER, p) for p in (PROBLEMS[0], problem)
  )
  assert bytes(ids[len(plain) :].tolist()) == b"1+1=2\n"
  seen = []
  grader = types.SimpleNamespace(
    reward=lambda _, text: seen.append(text) or RIGHT
  )
  records = rollout.grade(grader, TOKENIZER, [problem], COMPLETIONS[:1])
  assert seen == ["1+1=2\nA"] and records[0]["completion"] == seen[0]
  assert records[0]["tokens"] == 2  # what was written for it is not counted


def test_a_failed_grader_is_no_zero_reward():
  verdicts = [RIGHT, Verdict("error", None), WRONG, WRONG]
  records, out = sampled(verdicts, COMPLETIONS)
  assert records[1]["reward"] is None
  assert out.mask_BT.sum() == sum(len(COMPLETIONS[i].tokens) for i in (0, 2, 3))
  advantage = np.asarray(grpo.advantage(jax.tree.map(jnp.asarray, out)))
  np.testing.assert_array_equal(advantage, 0)  # each group is of one mind
  seen = rollout.summarise(records)
  assert seen["reward"] == (1.0, 3.0) and seen["ungraded"] == (1.0, 4.0)
  assert seen["degenerate_groups"] == (1.0, 1.0)  # one alone is no group


def test_the_summary_counts_truncated_answers_in_the_length():
  records, _ = sampled(
    [RIGHT, Verdict("timeout", 0.0), Verdict("unparsed", 0.0), WRONG],
    COMPLETIONS,
  )
  seen = rollout.summarise(records)
  assert seen["timeout"] == (1.0, 4.0)
  assert seen["length"] == (10.0, 4.0) and seen["truncated"] == (1.0, 4.0)
  assert seen["length_correct"] == (2.0, 1.0)
  assert seen["length_wrong"] == (8.0, 3.0)
  assert seen["accuracy"] == (1.0, 4.0)
  assert seen["unparsed"] == (1.0, 4.0)
  assert seen["reward_std"] == (np.std([1, 0, 0, 0]), 1.0)
  assert seen["degenerate_groups"] == (1.0, 2.0)


def test_too_long_a_sample_is_refused():
  with pytest.raises(ValueError, match="raise length"):
    sampled([RIGHT], [done([65] * 14)])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_policy_ratios_are_one(temperature):
  """Sampled, packed and scored again: the ratio is 1 on every sampled token."""
  model = presets.make("tiny", width=32, layers=1)
  params = transformer.init(model, jax.random.key(0))
  problems = [PROBLEMS[0], PROBLEMS[1]] * 3
  completions = rollout.write(
    model,
    params,
    TOKENIZER,
    problems,
    jax.random.key(1),
    rollout.Budget(Sampling(temperature), new_tokens=12, rows=6),
  )
  records = rollout.grade(task([RIGHT] * 6), TOKENIZER, problems, completions)
  records = [r | {"group": i} for i, r in enumerate(records)]
  out = packed(problems, completions, records, 0, length=40, multiple=2)
  hidden, _, _ = transformer.apply(
    model, params, out.tokens_BT, out.positions_BT, out.segments_BT
  )
  logprobs, _ = kernels.token_logprobs(
    hidden,
    transformer.unembedding(model, params),
    segments.next_tokens(jnp.asarray(out.tokens_BT)),
    temperature=temperature,
  )
  live = out.mask_BT > 0
  assert live.sum() == sum(len(c.tokens) for c in completions)
  gap = np.asarray(logprobs)[live] - out.logprobs_BT[live]
  assert np.abs(gap).max() <= 1e-5
