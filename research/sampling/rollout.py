"""One rollout: sample a group of answers a problem, grade them, pack them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from research.data import packing, text
from research.models.config import Model
from research.sampling import engine
from research.sampling.sampler import Sampling
from research.training import metrics
from research.types import Problem, Trajectory, Verdict

# Tokens, which of them the policy drew, and their log-probs: all of one length.
Spoken = tuple[np.ndarray, np.ndarray, np.ndarray]


def prompt_ids(tokenizer: text.Tokenizer, problem: Problem) -> np.ndarray:
  """Returns the token ids after which the model is to answer a problem."""
  messages = [{"role": "user", "content": problem.prompt}]
  ids = text.render(tokenizer, messages, generate=True).ids
  if not problem.begun:
    return ids
  return np.concatenate([ids, tokenizer.encode(problem.begun)])


@dataclasses.dataclass(frozen=True)
class Budget:
  """How to sample: the law, the most tokens, and how many rows at a time."""

  sampling: Sampling
  new_tokens: int
  rows: int


def completer(
  model: Model,
  params: Any,
  tokenizer: text.Tokenizer,
  budget: Budget,
  mesh: Mesh | None = None,
) -> Callable[..., list[engine.Completion]]:
  """Returns engine.complete of a model, wanting prompts and a key only."""
  return functools.partial(
    engine.complete,
    model,
    params,
    sampling=budget.sampling,
    new_tokens=budget.new_tokens,
    stop=tokenizer.stops,
    rows=budget.rows,
    mesh=mesh,
  )


def write(
  model: Model,
  params: Any,
  tokenizer: text.Tokenizer,
  problems: Sequence[Problem],
  key: jax.Array,
  budget: Budget,
  mesh: Mesh | None = None,
) -> list[engine.Completion]:
  """Returns one completion a problem; a problem may come several times."""
  prompts = [prompt_ids(tokenizer, problem) for problem in problems]
  return completer(model, params, tokenizer, budget, mesh)(prompts, key)


def value_of(verdict: Verdict) -> tuple[str, float | None]:
  """Returns a verdict's kind and value; a value that is no number is an error.

  It is graded as nothing, so that one broken reward ends no run.
  """
  if verdict.value is not None and not math.isfinite(verdict.value):
    return "error", None
  return verdict.kind, verdict.value


def grade(
  task: Any,
  tokenizer: text.Tokenizer,
  problems: Sequence[Problem],
  completions: Sequence[engine.Completion],
) -> list[dict[str, Any]]:
  """Returns, a record each, what a person would want to read of completions.

  The text begins with what was written in the assistant's name. The stop
  token is no part of it; any other special that was written is.
  A completion whose grading failed has reward None.
  """
  records = []
  for problem, completion in zip(problems, completions, strict=True):
    whole = len(completion.tokens) - (not completion.truncated)
    sampled = text.decode(tokenizer, completion.tokens[:whole])
    written = tokenizer.prefill + problem.begun + sampled
    kind, value = value_of(task.reward(problem, written))
    records.append(
      {
        "key": problem.meta["key"],
        "prompt": problem.prompt,
        "completion": written,
        "reward": value,
        "verdict": kind,
        "tokens": len(completion.tokens),
        "truncated": completion.truncated,
      }
    )
  return records


def segment(
  tokens: np.ndarray,
  mask: np.ndarray,
  logprobs: np.ndarray,
  record: Mapping[str, Any],
  version: int,
) -> packing.Example:
  """One sampled segment: its own values repeat on its tokens.

  `mask` is 1 on the tokens that the policy drew, whose `logprobs` count. A
  segment whose grading failed, its record's reward None, is masked whole.
  """
  graded = record["reward"] is not None
  whole = lambda x, kind: np.full(len(tokens), x, kind)
  return {
    "tokens": tokens.astype(np.int32),
    "mask": mask.astype(np.float32) * graded,
    "logprobs": logprobs.astype(np.float32),
    "rewards": whole(record["reward"] if graded else 0, np.float32),
    "group": whole(record["group"] if graded else -1, np.int32),
    "truncated": whole(record["truncated"], np.float32),
    "version": whole(version, np.int32),
  }


def unheard(example: packing.Example) -> packing.Example:
  """Returns a segment that teaches nothing; its group has its reward still."""
  return example | {"mask": np.zeros_like(example["mask"])}


def masked(example: packing.Example) -> packing.Example:
  """Returns a segment that teaches nothing and moves no other."""
  none = np.full_like(example["group"], -1)
  return unheard(example) | {"group": none}


def behind(prompt: np.ndarray, said: engine.Completion) -> Spoken:
  """Returns tokens, mask and log-probs of a completion behind its prompt."""
  none, drawn = np.zeros(len(prompt)), np.ones(len(said.tokens))
  return (
    np.concatenate([prompt, said.tokens]),
    np.concatenate([none, drawn]),
    np.concatenate([none, said.logprobs]),
  )


def pack(
  examples: Sequence[packing.Example], *, length: int, multiple: int, pad: int
) -> Trajectory:
  """Packs segments into rows of `length`, on the host.

  The number of rows is rounded up to a `multiple`, so that few shapes are ever
  compiled.

  Raises:
    ValueError: a sample is longer than `length`.
  """
  packed = packing.pack(examples, length)
  if packed.rejected:
    longest = max(len(e["tokens"]) for e in examples)
    raise ValueError(
      f"{packed.rejected} samples are longer than the rows of {length}, the "
      f"longest has {longest} tokens: raise length"
    )
  spare = -len(packed.rows) % multiple
  out = packing.lay_out(
    [*packed.rows, *([] for _ in range(spare))],
    length,
    pad=pad,
    shifted=("mask", "logprobs"),
  )
  fields: dict[str, Any] = {f"{name}_BT": x for name, x in out.items()}
  return Trajectory(**fields)


def summarise(
  records: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[float, float]]:
  """Returns what a batch of samples says of the policy, as (sum, count).

  Samples whose grading failed count under `ungraded` and nowhere else but in
  the lengths, which are those of all samples, cut off or not; wrong is what is
  not correct. `reward_std` is that of all rewards.
  """
  graded = [r for r in records if r["reward"] is not None]
  n, m = float(len(records)), float(len(graded))
  right = [r["tokens"] for r in graded if r["verdict"] == "correct"]
  wrong = [r["tokens"] for r in graded if r["verdict"] != "correct"]
  equal = metrics.degenerate_groups(
    [r["reward"] for r in graded], [r["group"] for r in graded]
  )
  return {
    "accuracy": (float(len(right)), m),
    "reward": (sum(r["reward"] for r in graded), m),
    "reward_std": (
      float(np.std([r["reward"] for r in graded] or [0])),
      min(m, 1),
    ),
    "timeout": (float(sum(r["verdict"] == "timeout" for r in graded)), m),
    "length": (float(sum(r["tokens"] for r in records)), n),
    "length_correct": (float(sum(right)), float(len(right))),
    "length_wrong": (float(sum(wrong)), float(len(wrong))),
    "truncated": (float(sum(r["truncated"] for r in records)), n),
    "unparsed": (float(sum(r["verdict"] == "unparsed" for r in graded)), m),
    "ungraded": (n - m, n),
    "degenerate_groups": (float(equal[0]), float(equal[1])),
  }
