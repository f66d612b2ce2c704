"""Rollouts whose every number goes with its answer, however rows are packed."""

import numpy as np

from research.types import Policy, Trajectory

# rows of (prompt tokens, sampled tokens, group, reward); group -1 is ungraded
ROWS = [
  [(1, 2, 0, 1.0), (2, 3, 1, 0.5)],
  [(1, 4, 0, 0.0), (1, 2, -1, 9.0)],
  [(2, 1, 1, 0.2), (1, 3, 2, 0.1)],
  [(3, 3, 2, 0.1), (1, 1, 1, 1.0)],
]
ALONE = [[answer] for row in ROWS for answer in row]
SMALL = ("logprobs", "old_logprobs", "now")
LAWS = (*SMALL, "ref_logprobs", "values", "process", "tokens")


def packed(rows=ROWS, T=9, left=0):
  """(Trajectory, what the policy says of it now), in NumPy."""
  B = len(rows)
  names = ["positions", "segments", "group", "mask", "rewards"]
  held = {name: np.zeros((B, T)) for name in names}
  held |= {name: np.full((B, T), 0.7) for name in LAWS}
  for b, row in enumerate(rows):
    at = left
    for k, (prompt, sampled, group, reward) in enumerate(row):
      n, whole = prompt + sampled, slice(at, at + prompt + sampled)
      held["positions"][b, whole] = range(n)
      held["segments"][b, whole] = k + 1
      held["group"][b, whole] = group
      held["rewards"][b, whole] = reward
      held["mask"][b, at + prompt - 1 : at + n - 1] = group >= 0
      key = [prompt, sampled, group + 1, int(100 * abs(reward))]
      draw = np.random.default_rng(key).normal(size=(len(LAWS), n))
      for name, x in zip(LAWS, draw, strict=True):
        held[name][b, whole] = 0.4 * x - 2.6 if name in SMALL else x
      at += n
  held["tokens"] = np.abs(1000 * held["tokens"]) % 16
  for name in ("positions", "segments", "group", "tokens"):
    held[name] = held[name].astype(np.int32)
  out = {f"{name}_BT": x for name, x in held.items()}
  now = out.pop("now_BT")
  zeros = np.zeros((B, T), np.int32)
  rollout = Trajectory(truncated_BT=zeros, version_BT=zeros, **out)
  return rollout, Policy(now, np.exp(now), np.square(now))


def answers(rollout):
  """[(row, [predictions of its sampled tokens])], graded ones alone."""
  found = []
  for b, row in enumerate(rollout.segments_BT):
    for k in range(1, row.max() + 1):
      mask = rollout.mask_BT[b]
      at = [t for t in range(len(row)) if row[t] == k and mask[t]]
      if at:
        found.append((b, at))
  return found
