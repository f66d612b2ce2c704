"""Relations of tokens against NumPy, and what they do not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import relations
from research.losses import attention_relations, hidden_relations
from research.types import Dense, Features

B, T = 2, 11
SEGMENTS = np.array([[1] * 5 + [2] * 4 + [0] * 2, [1] * 11], np.int32)


def held(seed, *shape):
  """What T tokens hold, the same of a token wherever it stands."""
  return np.random.default_rng(seed).normal(size=(B, T, *shape))


def dense(student, teacher, segments, heads):
  """The same, all relations at once, a pair of tokens at a time."""
  gap = np.zeros((B, T))
  for b in range(B):
    for t in range(T):
      seen = [s for s in range(t + 1) if segments[b, s] == segments[b, t]]
      for h in range(heads):
        logs = []
        for x in (teacher, student):
          part = x.reshape(B, T, heads, -1)[b, :, h]
          scores = part[seen] @ part[t] / np.sqrt(part.shape[-1])
          logs += [scores - np.log(np.exp(scores).sum())]
        gap[b, t] += (np.exp(logs[0]) * (logs[0] - logs[1])).sum() / heads
  return gap


def gap(student, teacher, segments=SEGMENTS, heads=2, block=4):
  found = relations.divergence_between(
    jnp.asarray(student),
    jnp.asarray(teacher),
    jnp.asarray(segments),
    heads=heads,
    block=block,
  )
  return np.asarray(found)


@pytest.mark.parametrize("block", [1, 4, 11, 128])
@pytest.mark.parametrize("heads", [1, 2])
def test_values_equal_numpy(heads, block):
  student, teacher = held(0, 4), held(1, 3, 2)
  expected = dense(student, teacher, SEGMENTS, heads)
  found = gap(student, teacher, heads=heads, block=block)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  with jax.enable_x64(True):
    found = gap(student, teacher, heads=heads, block=block)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_equal_differences():
  student, teacher = held(0, 4), held(1, 6)
  direction = held(2, 4)
  with jax.enable_x64(True):
    total = lambda x: relations.divergence_between(
      x, jnp.asarray(teacher), jnp.asarray(SEGMENTS), heads=2, block=4
    ).sum()
    slope = (jax.grad(total)(jnp.asarray(student)) * direction).sum()
  ahead, behind = (
    dense(student + h * direction, teacher, SEGMENTS, 2).sum()
    for h in (1e-5, -1e-5)
  )
  assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-7)


def test_a_student_like_its_teacher_is_at_zero():
  """Up to a rotation, which keeps all products; a stretch does not."""
  teacher = held(0, 4)
  turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
  assert np.abs(gap(teacher @ turn, teacher, heads=1)).max() < 1e-6
  assert gap(2 * teacher, teacher, heads=1).max() > 0.1


def test_neighbours_in_a_row_say_nothing():
  """Another segment, and padding, may hold anything at all but NaN."""
  student, teacher = held(0, 4), held(1, 4)
  once = gap(student, teacher)
  others = SEGMENTS != 2
  loud = [np.where(others[..., None], 7.0, x) for x in (student, teacher)]
  np.testing.assert_allclose(gap(*loud)[SEGMENTS == 2], once[SEGMENTS == 2])
  moved = [np.roll(x, 2, axis=1) for x in (student, teacher)]
  there = gap(*moved, segments=np.roll(SEGMENTS, 2, axis=1))
  rolled = np.roll(there, -2, axis=1)
  np.testing.assert_allclose(rolled[SEGMENTS == 2], once[SEGMENTS == 2], 1e-5)


def test_later_tokens_are_not_seen():
  student, teacher = held(0, 4), held(1, 4)
  cut = student.copy()
  cut[:, 6:] = 9.0
  np.testing.assert_allclose(
    gap(cut, teacher)[:, :6], gap(student, teacher)[:, :6], 1e-6
  )


def test_all_relations_are_never_there_at_once():
  big = jax.ShapeDtypeStruct((1, 4096, 64), jnp.float32)
  ids = jax.ShapeDtypeStruct((1, 4096), jnp.int32)
  f = functools.partial(relations.divergence_between, heads=1)
  slope = jax.grad(lambda *x: f(*x).sum())
  used = jax.jit(slope).lower(big, big, ids).compile().memory_analysis()
  assert used.temp_size_in_bytes < 4096 * 4096 * 4 / 2


def test_heads_that_do_not_divide():
  with pytest.raises(ValueError, match=r"4 numbers .* 3 relation heads"):
    gap(held(0, 4), held(1, 4), heads=3)


def all_layers(seed, width):
  """Two layers of a model's features, each its own."""
  names = ("hidden", "q", "k", "v")
  draw = lambda i, n: held(seed + 10 * i + n, width)
  return {
    name: jnp.asarray(np.stack([draw(i, 0), draw(i, 1)]))
    for i, name in enumerate(names)
  }


@pytest.mark.parametrize("module", [attention_relations, hidden_relations])
def test_losses_equal_numpy(module):
  """Of the layers asked for, each feature with its own, beside the text."""
  with jax.enable_x64(True):
    own, theirs = all_layers(100, 4), all_layers(200, 6)
    hidden, unembed = held(1, 4), np.random.default_rng(2).normal(size=(7, 4))
    targets = np.random.default_rng(3).integers(0, 7, (B, T))
    weights = np.linspace(0, 1, B * T).reshape(B, T) * (SEGMENTS > 0)
    student = Dense(jnp.asarray(hidden), jnp.asarray(unembed))
    ids = jnp.asarray(SEGMENTS)
    signal = Features(own, theirs, jnp.asarray(targets), ids)
    args = {"heads": 2, "share": 0.3, "layer": 0, "teacher_layer": 1}
    total, denominator, _ = module.loss(
      student, signal, jnp.asarray(weights), block=4, **args
    )
  names = "qkv" if module is attention_relations else ["hidden"]
  gaps = [
    dense(np.asarray(own[n][0]), np.asarray(theirs[n][1]), SEGMENTS, 2)
    for n in names
  ]
  logits = hidden @ unembed.T
  said = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  cost = np.log(np.exp(logits).sum(-1)) - said
  expected = (weights * (0.7 * cost + 0.3 * np.mean(gaps, 0))).sum()
  np.testing.assert_allclose(total, expected, rtol=1e-10)
  np.testing.assert_allclose(denominator, weights.sum(), rtol=1e-12)
