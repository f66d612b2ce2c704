"""One rollout: sample a group of answers a problem, grade them, pack them."""

from collections.abc import Mapping, Sequence
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


def prompt_ids(tokenizer: text.Tokenizer, problem: Problem) -> np.ndarray:
  """Returns the token ids after which the model is to answer a problem."""
  messages = [{"role": "user", "content": problem.prompt}]
  return text.render(tokenizer, messages, generate=True).ids


def collect(
  model: Model,
  params: Any,
  tokenizer: text.Tokenizer,
  task: Any,
  problems: Sequence[Problem],
  key: jax.Array,
  *,
  group: int,
  sampling: Sampling,
  new_tokens: int,
  rows: int,
  mesh: Mesh | None = None,
) -> tuple[list[engine.Completion], list[dict[str, Any]]]:
  """Samples and grades `group` answers to each problem.

  Returns the completions and, a line each, what a person would want to read of
  them; sample `i` answers problem `i // group`. A sample whose grading failed
  has reward None.
  """
  prompts = [prompt_ids(tokenizer, p) for p in problems for _ in range(group)]
  completions = engine.complete(
    model,
    params,
    prompts,
    key,
    sampling=sampling,
    new_tokens=new_tokens,
    stop=tokenizer.end,
    rows=rows,
    mesh=mesh,
  )
  records = []
  for i, completion in enumerate(completions):
    problem = problems[i // group]
    written = tokenizer.decode(completion.tokens)
    verdict: Verdict = task.reward(problem, written)
    records.append(
      {
        "prompt": problem.prompt,
        "completion": written,
        "reward": verdict.value,
        "verdict": verdict.kind,
        "tokens": len(completion.tokens),
        "truncated": completion.truncated,
        "group": i // group,
      }
    )
  return completions, records


def _example(
  prompt: np.ndarray,
  completion: engine.Completion,
  record: Mapping[str, Any],
  version: int,
) -> packing.Example:
  """One sampled segment: its own values repeat on its tokens."""
  n, m = len(prompt), len(completion.tokens)
  graded = record["reward"] is not None
  after = lambda x: np.concatenate([np.zeros(n, np.float32), x])
  whole = lambda x, kind: np.full(n + m, x, kind)
  return {
    "tokens": np.concatenate([prompt, completion.tokens]).astype(np.int32),
    "mask": after(np.full(m, graded, np.float32)),
    "logprobs": after(completion.logprobs.astype(np.float32)),
    "rewards": whole(record["reward"] if graded else 0, np.float32),
    "group": whole(record["group"] if graded else -1, np.int32),
    "truncated": whole(record["truncated"], np.float32),
    "version": whole(version, np.int32),
  }


def to_trajectory(
  tokenizer: text.Tokenizer,
  problems: Sequence[Problem],
  completions: Sequence[engine.Completion],
  records: Sequence[Mapping[str, Any]],
  *,
  length: int,
  step: int,
  version: int,
) -> Trajectory:
  """Packs graded samples into rows of `length`, on the host.

  The number of rows is rounded up to a multiple of `step`, so that few shapes
  are ever compiled.

  Raises:
    ValueError: a sample is longer than `length`.
  """
  prompts = [prompt_ids(tokenizer, p) for p in problems]
  examples = [
    _example(prompts[record["group"]], completion, record, version)
    for completion, record in zip(completions, records, strict=True)
  ]
  packed = packing.pack(examples, length)
  if packed.rejected:
    longest = max(len(e["tokens"]) for e in examples)
    raise ValueError(
      f"{packed.rejected} samples are longer than the rows of {length}, the "
      f"longest has {longest} tokens: raise length"
    )
  spare = -len(packed.rows) % step
  out = packing.lay_out(
    [*packed.rows, *([] for _ in range(spare))],
    length,
    pad=tokenizer.pad,
    shifted=("mask", "logprobs"),
  )
  return Trajectory(**{f"{name}_BT": array for name, array in out.items()})


def summarise(
  records: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[float, float]]:
  """Returns what a batch of samples says of the policy, as (sum, count).

  Samples whose grading failed count under `ungraded` and nowhere else but in
  the lengths, which are those of all samples, cut off or not.
  """
  graded = [r for r in records if r["reward"] is not None]
  n, m = float(len(records)), float(len(graded))
  lengths = lambda kind: [r["tokens"] for r in graded if r["verdict"] == kind]
  right, wrong = lengths("correct"), lengths("wrong")
  equal = metrics.degenerate_groups(
    [r["reward"] for r in graded], [r["group"] for r in graded]
  )
  return {
    "reward": (sum(r["reward"] for r in graded), m),
    "length": (float(sum(r["tokens"] for r in records)), n),
    "length_correct": (float(sum(right)), float(len(right))),
    "length_wrong": (float(sum(wrong)), float(len(wrong))),
    "truncated": (float(sum(r["truncated"] for r in records)), n),
    "unparsed": (float(sum(r["verdict"] == "unparsed" for r in graded)), m),
    "ungraded": (n - m, n),
    "degenerate_groups": (float(equal[0]), float(equal[1])),
  }
