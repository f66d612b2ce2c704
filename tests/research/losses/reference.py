"""Every loss in NumPy and fp64, with its slope by the student's logits.

`z` are a student's logits [B, T, V], `p` a teacher's over its own vocabulary,
`rows` what documents.packed brings. A reference returns (sum, denominator,
slope by z, slope by the student's features or None).
"""

import numpy as np

from tests.research.losses.cases import log_softmax


def through(q, slope):
  """The slope by the logits, from that by the log-probabilities `q`."""
  return slope - np.exp(q) * slope.sum(-1, keepdims=True)


def summed(weights, value, slope, features=None):
  total = (weights * value).sum()
  return total, weights.sum(), weights[..., None] * slope, features


def whole(f):
  """A loss on all of p: `f(q, p, **args)` gives its value and slope by q."""

  def reference(z, p, rows, temperature=1.0, **args):
    q, p = (log_softmax(x / temperature) for x in (z, p))
    value, slope = f(q, p, **args)
    square = temperature**2
    slope = square * through(q, slope) / temperature
    return summed(rows["weights"], square * value, slope)

  return reference


def kl(a, b):
  return (np.exp(a) * (a - b)).sum(-1)


def forward(q, p):
  return kl(p, q), -np.exp(p)


def reverse(q, p):
  return kl(q, p), np.exp(q) * (q - p + 1)


def jsd(q, p, beta=0.5):
  if beta in (0, 1):
    return (reverse if beta else forward)(q, p)
  m = np.log(beta * np.exp(p) + (1 - beta) * np.exp(q))
  value = beta * kl(p, m) + (1 - beta) * kl(q, m)
  return value, np.exp(q) * (1 - beta) * (q - m)


def skewed(q, p, alpha=0.1, reverse=False):
  a, b = (q, p) if reverse else (p, q)
  m = np.log(alpha * np.exp(a) + (1 - alpha) * np.exp(b))
  if reverse:
    return kl(q, m), np.exp(q) * (q - m + 1 - alpha * np.exp(q - m))
  return kl(p, m), -(1 - alpha) * np.exp(p - m) * np.exp(q)


def variation(q, p):
  gap = np.exp(q) - np.exp(p)
  return np.abs(gap).sum(-1) / 2, np.exp(q) * np.sign(gap) / 2


def universal(q, p):
  """The k-th likeliest of both: what one side has no token for is 0."""
  order = np.argsort(-q, -1)
  most = max(q.shape[-1], p.shape[-1])
  a, b = (
    np.pad(-np.sort(-np.exp(x), -1), [(0, 0), (0, 0), (0, most - x.shape[-1])])
    for x in (q, p)
  )
  sign = np.zeros_like(q)
  np.put_along_axis(sign, order, np.sign(a - b)[..., : q.shape[-1]], -1)
  return np.abs(a - b).sum(-1), np.exp(q) * sign


def written(z, rows):
  """(log q, that of each target, the targets one-hot)."""
  q = log_softmax(z)
  one_hot = np.eye(z.shape[-1])[rows["targets"]]
  return q, (q * one_hot).sum(-1), one_hot


def top_candidates(z, p, rows):
  del p
  q = log_softmax(z)
  inside = np.zeros_like(q)
  np.put_along_axis(inside, rows["ids"], np.exp(rows["best"]), -1)
  others = np.exp(q) * (inside == 0)
  rest = others.sum(-1, keepdims=True)
  buckets = np.concatenate([rows["best"], rows["tail"][..., None]], -1)
  own = np.take_along_axis(q, rows["ids"], -1)
  own = np.concatenate([own, np.log(rest)], -1)
  slope = -inside - np.exp(rows["tail"][..., None]) * others / rest
  return summed(rows["weights"], kl(buckets, own), through(q, slope))


def supervised(z, p, rows):
  del p
  q, said, one_hot = written(z, rows)
  return summed(rows["weights"], -said, through(q, -one_hot))


def sampled_reverse_kl(z, p, rows):
  del p
  q, said, one_hot = written(z, rows)
  gap = said - rows["logprobs"]  # a constant to the gradient
  slope = gap[..., None] * through(q, one_hot)
  return summed(rows["weights"], gap * said, slope)


def minillm(z, p, rows, normalize=True):
  q, own, one_hot = written(z, rows)
  p, other, _ = written(p, rows)
  weights, ids = rows["weights"], rows["segments"]
  behind = np.zeros_like(own)
  for b, t in np.ndindex(*own.shape):
    at = [s for s in range(t + 1, own.shape[1]) if ids[b, s] == ids[b, t] > 0]
    for s in at:
      behind[b, t] += weights[b, s] * (other - own)[b, s]
    if at and normalize:
      behind[b, t] /= max(sum(weights[b, s] for s in at), 1)
  now, slope = reverse(q, p)
  slope = through(q, slope - behind[..., None] * one_hot)
  return summed(weights, now - behind * own, slope)


def aligned_spans(z, p, rows, temperature=100.0):
  del p
  q, said, one_hot = written(z, rows)
  total, count, slope = 0.0, 0.0, np.zeros_like(z)
  for b, row in enumerate(rows["spans"]):
    for k in range(1, row.max() + 1):
      at = np.flatnonzero(row == k)
      weight = rows["weights"][b, at[0]]
      p = np.exp(rows["logprobs"][b, at[0]] / temperature)
      q_span = np.exp(said[b, at].sum() / temperature)
      total += weight * p * np.log(p / q_span)
      total += weight * (1 - p) * np.log((1 - p) / (1 - q_span))
      count += weight
      push = (1 - p) * q_span / (1 - q_span) - p
      slope[b, at] = weight * push / temperature * one_hot[b, at]
  return total, count, through(q, slope), None


def related(student, teacher, ids, weights, heads):
  """KL between a token's relations with those before it: [B, T] and slope."""
  gap, slope = np.zeros(ids.shape), np.zeros_like(student)
  wide = student.shape[-1] // heads
  for b, t, h in np.ndindex(*ids.shape, heads):
    seen = np.flatnonzero(ids[b, : t + 1] == ids[b, t])
    part = slice(h * wide, (h + 1) * wide)
    x = student[b, seen, part] / wide**0.25
    y = np.split(teacher[b, seen], heads, -1)[h]
    y = y / y.shape[-1] ** 0.25
    q, p = (log_softmax(v @ v[-1]) for v in (x, y))
    gap[b, t] += kl(p, q) / heads
    push = weights[b, t] * (np.exp(q) - np.exp(p)) / heads / wide**0.25
    slope[b, seen, part] += push[:, None] * x[-1]
    slope[b, t, part] += push @ x
  return gap, slope


def relations(*which):
  """The text and the mean gap of features `which`, at one share each."""

  def reference(z, p, rows, heads=1, share=0.5):
    total, count, slope, _ = supervised(z, p, rows)
    total, slope = (1 - share) * total, (1 - share) * slope
    features = np.zeros_like(rows["features"])
    held = rows["segments"], rows["weights"], heads
    for i in which:
      own, theirs = (rows[x][:, :, i] for x in ("features", "theirs"))
      gap, push = related(own, theirs, *held)
      total += share * (rows["weights"] * gap).sum() / len(which)
      features[:, :, i] = share * push / len(which)
    return total, count, slope, features

  return reference


REFERENCES = {
  "aligned_spans": aligned_spans,
  "attention_relations": relations(1, 2, 3),
  "forward_kl": whole(forward),
  "hidden_relations": relations(0),
  "jsd": whole(jsd),
  "minillm": minillm,
  "reverse_kl": whole(reverse),
  "sampled_reverse_kl": sampled_reverse_kl,
  "skewed_kl": whole(skewed),
  "supervised": supervised,
  "top_candidates": top_candidates,
  "total_variation": whole(variation),
  "universal": whole(universal),
}
