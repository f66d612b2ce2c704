"""What ragged attention refuses, and what it must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.ragged import empty_pages, ragged_paged_attention
from tests.kernels.test_ragged import RUNS, Case, draw


def freed(case, window, more=0):
  """The table without the pages that the window has left behind."""
  S, table = case.pages.shape[1], case.table.copy()
  for b, n in enumerate(np.diff(case.starts)):
    first = max(case.lengths[b] - n - window + 1, 0)
    table[b, : first // S + more] = 10**6
  return case._replace(table=table)


@pytest.mark.parametrize("impl", RUNS)
def test_pages_behind_the_window_may_be_gone(impl):
  """A static window says which places matter, a traced one might be 1."""
  case = draw(np.random.default_rng(14))
  whole, _ = RUNS[impl](*case, window=9)
  run = functools.partial(
    ragged_paged_attention, impl=impl, interpret=impl == "tpu"
  )
  o, _ = jax.jit(lambda: run(*freed(case, 9), window=9))()
  np.testing.assert_array_equal(o, whole)
  jax.jit(lambda w: run(*freed(case, 1), window=w)).lower(9)
  for window in (9, jnp.asarray(9), None):
    with pytest.raises(ValueError, match="page_table names"):
      run(*freed(case, 9, more=1), window=window)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"Q": 87_000}, r"q_QKGH \(87000.*1044000.*fewer tokens"),
    ({"most": 8200, "B": 32}, r"page_table \(32, 8200\).*larger pages"),
    ({"B": 44_000, "Q": 44_000}, "2464000 bytes of scalar"),
    ({"S": 2304, "K": 8}, r"pages_PSKh \(9, 2304, 8, 256\).*smaller pages"),
    ({"K": 64, "H": 256, "S": 16}, "fewer heads"),
  ],
)
def test_what_a_tpu_has_no_memory_for_is_refused(change, message):
  """Limits that were found by compiling on both sides of them."""
  sizes = {"Q": 512, "B": 4, "most": 8, "S": 16, "K": 2, "H": 128} | change
  Q, B, most, S, K, H = sizes.values()
  zeros = lambda *s, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(s, dtype)
  whole = functools.partial(zeros, dtype=jnp.int32)
  pages = jax.eval_shape(lambda: empty_pages(9, S, K, H, jnp.bfloat16))
  new = zeros(Q, K, 4 if K < 64 else 1, H), zeros(Q, K, H), zeros(Q, K, H)
  where = whole(B, most), whole(B), whole(B + 1)
  run = functools.partial(ragged_paged_attention, impl="tpu", interpret=True)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(run, *new, pages, *where)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"q": jnp.zeros((65, 2, 64))}, r"q_QKGH.*\(65, 2, 64\)"),
    ({"k": jnp.zeros((65, 3, 64))}, r"k_QKH.*65, 3.*65, 2, 2"),
    ({"v": jnp.zeros((65, 2, 64), jnp.bfloat16)}, "v_QKH.*bfloat16.*float32"),
    ({"pages": jnp.zeros((9, 8, 2, 64))}, r"pages_PSKh.*9, 8, 2, 64.*128\)"),
    ({"pages": empty_pages(9, 8, 2, 64, jnp.int8)}, "kv_scales.*int8"),
    ({"table": np.zeros((2, 3), int)}, r"page_table.*\(2, 3\).*\(6,\)"),
    ({"table": np.zeros((6, 12))}, "page_table.*float"),
    ({"table": np.full((6, 12), 10**6)}, "page_table names"),
    ({"starts": np.zeros(6, int)}, r"q_starts.*\(6,\).*\(6,\)"),
    ({"starts": np.arange(7)[::-1]}, "q_starts rises"),
    ({"starts": np.arange(7) * 99}, "q_starts rises"),
    ({"lengths": np.full(6, 500)}, "kv_lengths lie"),
    ({"lengths": np.zeros(6, int)}, "kv_lengths lie"),
    ({"window": 2.5}, "window.*float"),
    ({"window": 0}, "window is 0"),
    ({"window": np.int64(-3)}, "window is -3"),
    ({"softcap": 0.0}, "softcap is 0"),
    ({"window": np.ones(6, int)}, r"window.*\(6,\)"),
    ({"kv_scales": jnp.ones((2, 2))}, "kv_scales is given.*float32"),
    ({"impl": "hopper"}, 'hopper.*impl="xla"'),
    ({"impl": "cuda"}, "impl is 'cuda'"),
  ],
)
def test_arguments_are_checked(change, message):
  case = draw(np.random.default_rng(12))
  arrays = {k: v for k, v in change.items() if k in Case._fields}
  others = {k: v for k, v in change.items() if k not in arrays}
  with pytest.raises(ValueError, match=message):
    ragged_paged_attention(*case._replace(**arrays), **others)
