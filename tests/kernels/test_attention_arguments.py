"""What attention takes, and how it says what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import Blocks
from tests.kernels.test_attention import SEGMENTS, attend, draw, single


@pytest.mark.parametrize("kind", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32])
def test_segments_of_any_integers(kind):
  q, k, v, *_ = single(draw())
  ids = {"q_segments_BT": SEGMENTS, "kv_segments_BS": SEGMENTS}
  narrow = {name: x.astype(kind) for name, x in ids.items()}
  for expected, got in zip(
    attend("reference", **ids)(q, k, v),
    attend("reference", **narrow)(q, k, v),
    strict=True,
  ):
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("T, S", [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_look_at_or_nobody_to_look(T, S):
  q, k, v, *_ = single(draw(T=T, S=S))
  total = lambda *xs: kernels.flash_attention(*xs, impl="xla").sum()
  for x, like in zip(
    jax.grad(total, (0, 1, 2))(q, k, v), (q, k, v), strict=True
  ):
    assert x.shape == like.shape and not x.any()
  o, lse = kernels.flash_attention(q, k, v, return_lse=True)
  assert not o.any() and np.isneginf(lse).all()


def test_merge_wants_parts_of_one_shape():
  o, lse = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3))
  with pytest.raises(ValueError, match=r"lse2 \(1, 3\)"):
    kernels.merge(o, lse, o, lse[:1])


BAD = {
  "q is": lambda a: {"q": a["q"][0]},
  "k is": lambda a: {"k": a["k"][:, :, :1]},
  "v is": lambda a: {"v": a["v"][:, :5]},
  "v is bfloat16": lambda a: {"v": a["v"].astype(jnp.bfloat16)},
  "q is int32": lambda a: {"q": a["q"].astype(jnp.int32)},
  "give both": lambda a: {"q_segments_BT": SEGMENTS},
  "kv_segments_BS is": lambda a: {
    "q_segments_BT": SEGMENTS,
    "kv_segments_BS": SEGMENTS[:, :3],
  },
  "integers are wanted": lambda a: {
    "q_segments_BT": SEGMENTS * 1.0,
    "kv_segments_BS": SEGMENTS,
  },
  "sinks is .4,": lambda a: {"sinks": jnp.zeros(4)},
  "window is 0": lambda a: {"window": 0},
  "window has shape": lambda a: {"window": jnp.ones(3, jnp.int32)},
  "q_offset is float32": lambda a: {"q_offset": jnp.ones(2)},
  "q_offset is 536870912": lambda a: {"q_offset": 2**29},
  "window is -3": lambda a: {"window": jnp.int32(-3)},
  "window is 0;": lambda a: {"window": np.int64(0)},
  "softcap is 0": lambda a: {"softcap": 0.0},
  "sinks is int32": lambda a: {"sinks": jnp.zeros((2, 2), jnp.int32)},
  "at least one token": lambda a: {"blocks": Blocks(0, 1, 1, 1)},
  "one of reference": lambda a: {"impl": "triton"},
  "q is float32; impl='hopper'": lambda a: {"impl": "hopper"},
}


@pytest.mark.parametrize("told", BAD)
def test_bad_arguments_are_named(told):
  q, k, v, *_ = single(draw())
  args = {"q": q, "k": k, "v": v}
  args |= BAD[told](args)
  with pytest.raises(ValueError, match=told):
    kernels.flash_attention(args.pop("q"), args.pop("k"), args.pop("v"), **args)
