"""The train step: what must not matter does not, to the last digit it can."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import loop
from research import sharding
from research.losses import reverse_kl, supervised
from research.models import transformer
from research.models.config import Model
from research.training import objectives, optimizers
from research.training import step as steps
from research.types import Batch

MODEL = Model(
  vocab=32,
  width=16,
  layers=2,
  kv_heads=2,
  groups=2,
  head_dim=8,
  mlp=32,
  context=32,
)
SLOW = pytest.mark.slow  # a mesh that another of its test stands for
RATE = optimizers.Optimizer(learning_rate=1e-2, warmup=2)


def batch(lengths, T=12, pad=0, seed=0, left=0):
  """One document a row, with `left` places of padding before it."""
  B = len(lengths)
  t = np.arange(T)[None] - left
  inside = (t >= 0) & (t < np.asarray(lengths)[:, None])
  draw = np.random.default_rng(seed).integers(1, 32, (B, 64))
  tokens = np.full((B, T), pad)
  for b, n in enumerate(lengths):
    tokens[b, left : left + n] = draw[b, :n]
  last = t == np.asarray(lengths)[:, None] - 1
  return Batch(
    tokens.astype(np.int32),
    (inside & ~last).astype(np.float32),
    (t * inside).astype(np.int32),
    inside.astype(np.int32),
  )


def objective(mesh=None, model=MODEL):
  return objectives.imitation(model, supervised.loss, mesh)


@functools.partial(jax.jit, static_argnames="microbatches")
def accumulated(params, rows, microbatches):
  return steps.accumulate(objective(), params, None, rows, microbatches)


def gradients(rows, microbatches=1, params=None):
  """(gradients divided once, loss) of a batch."""
  params = params or transformer.init(MODEL, jax.random.key(0))
  grads, total, count, _ = accumulated(params, rows, microbatches=microbatches)
  return jax.tree.map(lambda g: g / count, grads), total / count


def assert_same(a, b, tolerance=1e-5):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    scale = np.abs(x).max() + 1e-12
    assert np.abs(np.asarray(x) - np.asarray(y)).max() <= tolerance * scale


LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8]


def test_microbatches_change_nothing():
  rows = batch(LENGTHS)
  whole = gradients(rows)
  for microbatches in (2, 4, 8):
    assert_same(whole, gradients(rows, microbatches))


def test_a_mean_of_means_would_differ():
  """The negative control: rows of different lengths, averaged row by row."""
  one = lambda n: gradients(
    jax.tree.map(lambda x: x[n : n + 1], batch(LENGTHS))
  )[1]
  mean = np.mean([one(n) for n in range(1, 8)])
  assert abs(mean - gradients(batch(LENGTHS))[1]) > 1e-3


@pytest.mark.parametrize("left, right", [(0, 20), (3, 0), (3, 1)])
def test_padding_changes_nothing(left, right):
  plain = gradients(batch(LENGTHS, T=8))
  padded = gradients(batch(LENGTHS, T=8 + left + right, left=left))
  assert_same(plain, padded)


def test_what_the_padding_holds_changes_nothing_bitwise():
  a, b = (gradients(batch(LENGTHS, pad=p)) for p in (0, 31))
  for x, y in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), strict=True):
    np.testing.assert_array_equal(x, y)
  assert_same(a[0], b[0], 1e-6)


def test_packing_changes_nothing():
  """Documents of 5 and 7 tokens in two rows, and in one."""
  apart = batch([5, 7], T=12)
  join = lambda x: np.concatenate([x[0, :5], x[1, :7]])[None]
  packed = Batch(
    join(apart.tokens_BT),
    join(apart.weights_BT),
    join(apart.positions_BT),
    join(apart.segments_BT * np.array([[1], [2]], np.int32)),
  )
  assert_same(gradients(apart), gradients(packed))


def state_on(mesh, optimizer):
  fresh, abstract = loop.begin(
    MODEL,
    mesh,
    lambda: steps.new_state(
      transformer.init(MODEL, jax.random.key(0)), optimizer, jax.random.key(1)
    ),
  )
  return fresh(), abstract


def train(shape, count=20, microbatches=1, model=MODEL):
  mesh = sharding.make_mesh(**shape)
  optimizer = optimizers.make(RATE, 20)
  state, _ = state_on(mesh, optimizer)
  step = steps.compiled(
    objective(mesh, model), optimizer, clip=1.0, microbatches=microbatches
  )
  losses = []
  for i in range(count):
    rows = sharding.place(batch([3, 12, 5, 9, 2, 7, 12, 4], seed=i % 2), mesh)
    state, told = step(state, rows)
    losses.append(float(told["loss"][0] / told["loss"][1]))
  return np.array(losses), state


@functools.cache
def on_one():
  """The losses and the last state of one device, trained once for all."""
  return train({})


@pytest.mark.parametrize(
  "shape, microbatches",
  [
    pytest.param({"data": 2, "fsdp": 2, "tensor": 2}, 1, marks=SLOW),
    ({"fsdp": 4, "tensor": 2}, 2),
    pytest.param({"data": 8}, 1, marks=SLOW),
    ({"data": 2, "tensor": 2, "context": 2}, 1),
  ],
)
def test_eight_devices_equal_one_over_20_steps(shape, microbatches):
  one, single = on_one()
  eight, spread = train(shape, microbatches=microbatches)
  assert np.abs(one - eight).max() <= 1e-5
  assert one[-1] < one[0]  # it did learn
  gap = jax.tree.map(
    lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(),
    single.params,
    spread.params,
  )
  assert max(jax.tree.leaves(gap)) <= 1e-4
  q = spread.params["layers"]["attention"]["q_DKGH"]
  parts = np.prod(q.shape) // np.prod(q.addressable_shards[0].data.shape)
  assert parts == shape.get("fsdp", 1) * shape.get("tensor", 1)
  moments = spread.opt_state[0].mu["layers"]["attention"]["q_DKGH"]
  assert moments.sharding == q.sharding


@pytest.mark.parametrize(
  "shape",
  [
    {"data": 2, "fsdp": 2, "tensor": 2},
    pytest.param({"data": 2, "tensor": 2, "context": 2}, marks=SLOW),
  ],
)
def test_eight_devices_end_at_the_same_parameters(shape):
  """Computed in fp64 the order of sums is gone: what else differs would show.

  In fp32 Adam scales gradients that are rounding noise up to whole steps. The
  parameters themselves, and so their gradients, remain fp32.
  """
  with jax.enable_x64(True):
    wide = dataclasses.replace(MODEL, dtype="float64")
    one, single = train({}, model=wide)
    eight, spread = train(shape, model=wide)
  assert np.abs(one - eight).max() <= 1e-6
  for x, y in zip(
    jax.tree.leaves(single.params), jax.tree.leaves(spread.params), strict=True
  ):
    assert np.abs(np.asarray(x) - np.asarray(y)).max() <= 1e-5


def test_the_gradient_is_clipped_to_a_global_norm():
  params = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}

  def linear(p, frozen, x):
    total = sum((v * v).sum() for v in p.values()) / 2
    return total * x.sum(), jnp.ones(()), {}

  optimizer = optax.sgd(1.0)
  state = steps.new_state(params, optimizer, jax.random.key(0))
  new, told = steps.update(linear, optimizer, state, jnp.ones((1, 1)), clip=1.0)
  np.testing.assert_allclose(new.params["a"], 3 - 0.6, rtol=1e-6)
  np.testing.assert_allclose(new.params["b"], 4 - 0.8, rtol=1e-6)
  np.testing.assert_allclose(told["gradient_norm"][0], 5.0, rtol=1e-6)
  free, _ = steps.update(linear, optimizer, state, jnp.ones((1, 1)), clip=9.0)
  np.testing.assert_allclose(free.params["a"], 0.0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_moves_nothing_but_the_step(bad):
  def poisoned(params, frozen, x):
    return (params["a"] * x).sum(), jnp.ones(()), {}

  optimizer = optimizers.make(RATE, 20)
  params = {"a": jnp.ones((1, 1))}
  state = steps.new_state(params, optimizer, jax.random.key(0))
  step = steps.compiled(poisoned, optimizer, clip=1.0)
  before = jax.tree.map(np.array, (state.params, state.opt_state))
  state, told = step(state, jnp.full((1, 1), bad))
  assert float(told["nonfinite"][0]) == 1 and int(state.step) == 1
  after = (state.params, state.opt_state)
  for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(x, y)
  state, told = step(state, jnp.ones((1, 1)))
  assert float(told["nonfinite"][0]) == 0
  assert float(state.params["a"][0, 0]) != 1


def test_an_update_that_is_not_finite_moves_nothing():
  """A rate of infinity: loss and gradient are fine, the parameters not."""
  linear = lambda params, frozen, x: ((params["a"] * x).sum(), x.sum(), {})
  optimizer = optax.sgd(np.inf)
  state = steps.new_state(
    {"a": jnp.zeros((1, 1))}, optimizer, jax.random.key(0)
  )
  new, told = steps.update(linear, optimizer, state, jnp.ones((1, 1)), clip=1.0)
  assert float(told["nonfinite"][0]) == 1
  assert float(new.params["a"][0, 0]) == 0


def test_nothing_to_learn_is_no_division_by_zero():
  rows = dataclasses.replace(batch([4]), weights_BT=np.zeros((1, 12)))
  optimizer = optimizers.make(RATE, 20)
  params = transformer.init(MODEL, jax.random.key(0))
  state = steps.new_state(params, optimizer, jax.random.key(1))
  step = functools.partial(steps.update, objective(), optimizer, clip=1.0)
  _, told = jax.jit(step)(state, rows)
  assert float(told["gradient_norm"][0]) == 0
  assert float(told["nonfinite"][0]) == 0


def test_one_trace_a_shape():
  """Ragged lengths under one shape compile once, another shape once more."""
  traces = []

  def counted(params, frozen, rows):
    traces.append(rows.tokens_BT.shape)
    return objective()(params, frozen, rows)

  optimizer = optimizers.make(RATE, 20)
  params = transformer.init(MODEL, jax.random.key(0))
  state = steps.new_state(params, optimizer, jax.random.key(1))
  step = steps.compiled(counted, optimizer, clip=1.0)
  for lengths in ([3, 4], [1, 12], [7, 7], [2, 9], [5, 5]):
    state, _ = step(state, batch(lengths))
  assert traces == [(2, 12)]
  step(state, batch([3, 4], T=16))
  assert traces == [(2, 12), (2, 16)]


def test_distilling_from_a_teacher_moves_the_student_to_it():
  """Reverse KL falls; a student that starts as its teacher stays."""
  teacher = transformer.init(MODEL, jax.random.key(7))
  match = objectives.matching(MODEL, MODEL, reverse_kl.loss)
  optimizer = optimizers.make(RATE, 20)
  rows = batch([12] * 8)
  params = transformer.init(MODEL, jax.random.key(0))
  state = steps.new_state(params, optimizer, jax.random.key(1), frozen=teacher)
  step = jax.jit(functools.partial(steps.update, match, optimizer, clip=1.0))
  losses = []
  for _ in range(20):
    state, told = step(state, rows)
    losses.append(float(told["loss"][0] / told["loss"][1]))
  assert losses[-1] < 0.7 * losses[0]
  same = dataclasses.replace(state, params=teacher)
  _, told = step(same, rows)
  np.testing.assert_allclose(told["loss"][0], 0, atol=1e-3)


def test_golden_losses(golden):
  """Three losses of a fixed student on fixed rows."""
  losses, _ = train({}, count=3)
  golden("step_losses", losses)


def test_schedules():
  at = lambda **changes: optimizers.schedule(
    dataclasses.replace(RATE, **changes), 10
  )
  np.testing.assert_allclose(
    [at(floor=0.1)(i) for i in (0, 1, 2, 6, 10, 99)],
    [0.005, 0.01, 0.01, 0.0055, 0.001, 0.001],
    rtol=1e-5,
  )
  np.testing.assert_allclose(at(schedule="linear")(6), 0.005, rtol=1e-5)
  assert float(at(schedule="constant", warmup=0)(99)) == pytest.approx(0.01)
  with pytest.raises(ValueError, match="cosin"):
    at(schedule="cosin")


def test_weight_decay_spares_norms_and_biases():
  cfg = dataclasses.replace(MODEL, qkv_bias=True)
  params = transformer.init(cfg, jax.random.key(0))
  params = jax.tree.map(lambda p: p + 1, params)
  decayed = optimizers.make(dataclasses.replace(RATE, weight_decay=0.5), 20)
  zero = jax.tree.map(jnp.zeros_like, params)
  updates, _ = decayed.update(zero, decayed.init(params), params)
  moved = {
    path[-1].key: bool(np.abs(u).max() > 0)
    for path, u in jax.tree_util.tree_leaves_with_path(updates)
  }
  assert moved["q_DKGH"] and moved["embed_VD"]
  assert not moved["scale_D"] and not moved["qbias_KGH"]


def test_updates_of_one_step_share_its_rate():
  """Two updates a step: a warm-up of two steps lasts four updates."""
  how = optimizers.Optimizer(1.0, warmup=2, schedule="constant", b1=0.0, b2=0.0)
  sizes = []
  for updates in (1, 2):
    optimizer = optimizers.make(how, 4, updates)
    params = {"x_D": jnp.ones(1)}
    state, moved = optimizer.init(params), []
    for _ in range(4 * updates):
      change, state = optimizer.update({"x_D": jnp.ones(1)}, state, params)
      moved.append(float(change["x_D"][0]))
    sizes.append(moved)
  one, two = sizes
  np.testing.assert_allclose(two, np.repeat(one, 2), rtol=1e-6)
  assert one[0] != one[1]
